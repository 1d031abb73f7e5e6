from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import NoSavedModel, NoSuchVersion, UnsafeExport, UsageError
from servingrepo.repository.records import encode
from servingrepo.repository.repository import load_record, quick_differences
from servingrepo.repository.verification import verify_version
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.storage.manifest import Differences
    from tests.repository.conftest import Release

DATA = "variables/variables.data-00000-of-00001"


def remove(version: Path) -> None:
    (version / DATA).unlink()


def add(version: Path) -> None:
    (version / "new").write_bytes(b"")


def add_directory(version: Path) -> None:
    (version / "new").mkdir()


def grow(version: Path) -> None:
    with (version / DATA).open("ab") as stream:
        stream.write(b"!")


def swap_for_a_directory(version: Path) -> None:
    (version / DATA).unlink()
    (version / DATA).mkdir()


def swap_for_a_link(version: Path) -> None:
    (version / DATA).rename(version.parent / ".elsewhere")
    (version / DATA).symlink_to(version.parent / ".elsewhere")


def swap_for_a_linked_directory(version: Path) -> None:
    (version / "variables").rename(version.parent / ".elsewhere")
    (version / "variables").symlink_to(version.parent / ".elsewhere")


def plant_a_strange_name(version: Path) -> None:
    (version / os.fsdecode(b"\xff")).write_bytes(b"")


@pytest.fixture
def version(repo: OpenRepository, release: Release) -> Path:
    """The one published version."""
    release(1.0)
    return repo.value.layout.version("m", 1)


def quick(repo: OpenRepository) -> Differences:
    record = load_record(repo.value, "m", 1)
    assert record is not None
    return quick_differences(repo.value, record)


def test_a_version_is_what_its_record_says(repo: OpenRepository, version: Path) -> None:
    (found,) = repo.verify("m@1")
    assert found.ok
    assert found.problems == ()
    assert found.against is not None
    assert found.digest == repo.show_version("m@1").digest
    assert found.files == len(repo.show_version("m@1").manifest.files)
    assert not quick(repo)


CHANGES = [
    (remove, "missing"),
    (add, "extra"),
    (add_directory, "extra"),
    (grow, "changed"),
    (swap_for_a_directory, "changed"),
    (swap_for_a_link, "changed"),
    (swap_for_a_linked_directory, "changed"),
    (plant_a_strange_name, "extra"),
]


@pytest.mark.parametrize(("change", "where"), CHANGES)
def test_every_change_is_found_by_verify_and_before_a_rollback(
    change: Callable[[Path], None], where: str, repo: OpenRepository, version: Path
) -> None:
    change(version)
    (found,) = repo.verify("m@1")
    assert not found.ok
    assert getattr(found.differences, where)
    assert getattr(quick(repo), where)
    assert msgspec.json.encode(found)


def test_changed_bytes_of_the_same_size_are_found_by_verify(
    repo: OpenRepository, version: Path
) -> None:
    data = bytearray((version / DATA).read_bytes())
    data[-1] ^= 1
    (version / DATA).write_bytes(data)
    (found,) = repo.verify("m@1")
    assert found.differences.changed == (DATA,)
    assert not quick(repo)  # it has no time to look at bytes, and does not say that it did


def test_a_wrong_fingerprint_is_named(tmp_path: Path, repo: OpenRepository) -> None:
    export = write_export(tmp_path / "export", variables=True, fingerprint=True)
    (found,) = repo.verify(export)
    assert found.ok
    other = write_export(tmp_path / "other", variables=True, fingerprint=True)
    write_export(tmp_path / "other", slope=9.0, variables=True)
    (found,) = repo.verify(other)
    assert any("fingerprint" in one for one in found.problems)


def test_a_path_is_not_said_to_be_checked_against_a_record(
    tmp_path: Path, repo: OpenRepository
) -> None:
    (found,) = repo.verify(write_export(tmp_path / "export"))
    assert found.ok
    assert found.against is None
    assert found.model is None


def test_a_path_with_links_out_of_it_is_refused(tmp_path: Path, repo: OpenRepository) -> None:
    export = write_export(tmp_path / "export")
    (export / "out").symlink_to("/etc/hostname")
    with pytest.raises(UnsafeExport):
        repo.verify(export)


def test_without_references_every_version_is_verified(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    release(3.0, model="other")
    assert [one.subject for one in repo.verify()] == ["m@1", "m@2", "other@1"]
    assert [one.subject for one in repo.verify("m")] == ["m@1", "m@2"]


def test_results_of_many_versions_share_what_they_say_alike(
    repo: OpenRepository, release: Release
) -> None:
    """Of 50,000 results each with a list of operations of its own, memory would be full."""
    release(1.0)
    release(2.0)
    first, second = repo.verify()
    assert first.version != second.version
    assert first.inspection.demands is not None
    assert first.inspection.demands is second.inspection.demands
    assert first.inspection.signatures is second.inspection.signatures


def test_a_foreign_version_cannot_be_verified(repo: OpenRepository, version: Path) -> None:
    (version.parent / "9").mkdir()
    with pytest.raises(NoSuchVersion, match="servingrepo did not publish"):
        verify_version(repo.value, "m", 9)


def test_a_quick_verification_says_what_it_did_not_check(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    run = write_export(tmp_path / "big", variables=True, payload_bytes=3 << 20)
    repo.promote(run, model="big", smoke=False)
    (found,) = repo.verify("big", quick=True)
    assert (found.ok, found.quick, found.digest, found.tensors) == (True, True, "", None)
    assert found.not_checked == ("the bytes of 1 large file (3,145,728 bytes): not read",)
    published = repo.value.layout.version("big", 1)
    flip_last_bit(published / "assets.extra/payload.bin")
    assert repo.verify("big", quick=True)[0].ok
    flip_last_bit(published / DATA)
    (found,) = repo.verify("big", quick=True)
    assert found.differences.changed == (DATA,)
    (found,) = repo.verify("big")
    assert found.differences.changed == ("assets.extra/payload.bin", DATA)
    assert found.tensors is not None
    assert [one.tensor for one in found.tensors.damaged] == ["slope"]


def flip_last_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_run_directory_is_said_to_be_one_and_its_export_verified(
    repo: OpenRepository, tmp_path: Path
) -> None:
    write_export(tmp_path / "run/saved_model", variables=True)
    (tmp_path / "run/notes.txt").write_text("better")
    (found,) = repo.verify(tmp_path / "run")
    assert found.ok
    assert (found.run, found.path) == (str(tmp_path / "run"), str(tmp_path / "run/saved_model"))
    flip_last_bit(tmp_path / "run/saved_model" / DATA)
    (found,) = repo.verify(tmp_path / "run")
    assert any("tensor slope" in line for line in found.problems)


def test_a_directory_without_an_export_says_what_it_has(
    repo: OpenRepository, tmp_path: Path
) -> None:
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(NoSavedModel, match="no SavedModel"):
        repo.verify(tmp_path)


def test_a_path_says_what_nothing_vouches_for(repo: OpenRepository, tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", variables=True, assets={"words.txt": b"a\n"})
    with (path / DATA).open("ab") as stream:
        stream.write(b"more")
    index = path / "variables/variables.index"
    blocks, footer = index.read_bytes()[:-48], index.read_bytes()[-48:]
    index.write_bytes(blocks + b"?" + footer)
    (found,) = repo.verify(path)
    assert found.ok
    assert found.not_checked == (
        "saved_model.pb: its hash would be in fingerprint.pb, but there is none",
        "1 byte of variables/variables.index outside its blocks",
        f"4 bytes of {DATA} that belong to no tensor",
        "1 file that has no checksum (2 bytes): assets/words.txt",
    )


def test_tensors_whose_file_is_missing_are_said_not_to_be_checked_and_damaged_ones_are_not(
    repo: OpenRepository, tmp_path: Path
) -> None:
    path = write_export(tmp_path / "1", variables=True)
    flip_last_bit(path / DATA)
    (found,) = repo.verify(path)
    assert not any("tensor" in line for line in found.not_checked)
    (path / DATA).unlink()
    (found,) = repo.verify(path)
    assert "2 tensors, in files that are missing or in another byte order" in found.not_checked


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def forget_tensors(repo: OpenRepository) -> None:
    """Make the record one of an older servingrepo, which checked no tensors."""
    record = load_record(repo.value, "m", 1)
    assert record is not None
    older = msgspec.structs.replace(record, tensors=None)
    repo.value.layout.record("m", 1).write_bytes(encode(older))


def test_a_record_vouches_for_tensors_in_equal_bytes(repo: OpenRepository, version: Path) -> None:
    (found,) = repo.verify("m@1")
    assert found.vouched
    assert found.tensors == repo.show_version("m@1").tensors
    (deep,) = repo.verify("m@1", deep=True)
    assert not deep.vouched
    assert deep.tensors == found.tensors
    (version / "new").write_bytes(b"")
    (found,) = repo.verify("m@1")
    assert (found.ok, found.vouched) == (False, True)


def test_a_damaged_tensor_is_named_and_not_vouched_for(repo: OpenRepository, version: Path) -> None:
    flip(version / DATA, 0)
    (found,) = repo.verify("m@1")
    assert not found.vouched
    assert found.tensors is not None
    assert found.tensors.damaged_count == 1
    assert found.differences.changed == (DATA,)


def test_another_index_is_never_vouched_for(repo: OpenRepository, version: Path) -> None:
    flip(version / "variables" / "variables.index", -60)
    (found,) = repo.verify("m@1")
    assert not found.ok
    assert not found.vouched


@pytest.mark.usefixtures("version")
def test_a_record_without_tensors_vouches_for_none(repo: OpenRepository) -> None:
    forget_tensors(repo)
    (found,) = repo.verify("m@1")
    assert found.tensors is not None
    assert found.tensors.complete
    assert not found.vouched


@pytest.mark.usefixtures("version")
def test_quick_and_deep_exclude_each_other(repo: OpenRepository) -> None:
    with pytest.raises(UsageError):
        repo.verify("m@1", quick=True, deep=True)
