from __future__ import annotations

import filecmp
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import (
    ConfigEdited,
    DamagedExport,
    NumberUsed,
    RepositoryDamaged,
    SmokeFailed,
    SourceChanged,
    UnsafeExport,
    VersionBad,
)
from servingrepo.repository.config import pins, read_config
from servingrepo.repository.retention import Keep
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.testing.exports import Served
from tests.support import Meanwhile, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.tf
def test_promote_when_somebody_rolled_back_meanwhile_publishes_without_serving(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=1.0), model="half", smoke=False)
    repo.promote(run_with(tmp_path / "b", offset=2.0), model="half", smoke=False)

    def roll_back() -> None:
        rolled_back = repo.rollback("half")
        assert any("half@3" in one for one in rolled_back.promoting), "the rollback warns of it"

    run = run_with(tmp_path / "c", offset=3.0)
    done = repo.promote(run, model="half", engine=Meanwhile(roll_back), serve=True)
    assert (done.version, done.published, done.served, done.after) == (3, True, False, (1,))
    assert done.overtaken.startswith("rollback by ")
    assert pins(read_config(repo.value).config, "half") == (1,)
    assert repo.serve("half@3").served_after == 3, "whoever types it means it"


@pytest.mark.tf
def test_promote_publishes_the_bytes_of_the_export_and_pins_them(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "run", offset=2.0, assets={"words.txt": b"a\nb\n"})
    done = repo.promote(run, model="half", message="first", engine="embedded")
    target = tmp_path / "serving" / "models" / "half" / "1"
    assert (done.version, done.served, done.after) == (1, True, (1,))
    same = filecmp.dircmp(run / "saved_model", target)
    assert not same.left_only
    assert not same.right_only
    assert not same.diff_files
    assert (target / "assets" / "words.txt").read_bytes() == b"a\nb\n"
    record = repo.show_version("half@1")
    assert record.message == "first"
    assert record.proofs[0].staged
    assert [one.outcome for one in record.proofs[0].report.verdicts] == ["passed"]


@pytest.mark.tf
def test_promote_when_the_smoke_test_fails_leaves_nothing_and_burns_the_number(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "good", offset=2.0), model="half", engine="embedded")
    bad = run_with(tmp_path / "bad", offset=3.0, signatures=[Served(fault="uninitialized")])
    with pytest.raises(SmokeFailed):
        repo.promote(bad, model="half", engine="embedded")
    assert [path.name for path in (tmp_path / "serving/models/half").glob("[0-9]*")] == ["1"]
    assert not list((tmp_path / "serving/models/half/.staging").iterdir())
    assert not list((tmp_path / "serving/.servingrepo/journal").iterdir())
    assert pins(read_config(repo.value).config, "half") == (1,)
    again = repo.promote(run_with(tmp_path / "next", offset=4.0), model="half", smoke=False)
    assert again.version == 3


def test_promote_when_the_content_was_published_returns_that_version(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    first = run_with(tmp_path / "a", offset=2.0)
    second = run_with(tmp_path / "b", offset=3.0)
    repo.promote(first, model="half", smoke=False)
    repo.promote(second, model="half", smoke=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = repo.promote(first, model="half", smoke=False)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert (done.version, done.same_as, done.published, done.after) == (1, 1, False, (2,))
    assert after == before
    served = repo.promote(first, model="half", smoke=False, serve=True)
    assert (served.version, served.before, served.after) == (1, (2,), (1,))


def test_promote_when_the_same_content_is_pruned_in_that_moment_publishes_it_anew(
    tmp_path: Path,
) -> None:
    root = tmp_path / "serving"
    repo = new_repository(root)
    first = run_with(tmp_path / "a", offset=1.0)
    for run in (first, *(run_with(tmp_path / name, offset=ord(name)) for name in "bc")):
        repo.promote(run, model="half", smoke=False)
    steps = tmp_path / "steps"
    slow = Disk(Faults.parse(f"record={steps},trash.before-rename=sleep:2"))
    pruning = servingrepo.open(root, disk=slow)
    with ThreadPoolExecutor() as pool:
        pruned = pool.submit(pruning.prune, "half", keep=Keep(last=1))
        while not (steps.exists() and "trash.before-rename" in steps.read_text()):
            time.sleep(0.01)
        done = repo.promote(first, model="half", smoke=False, serve=True)
        assert pruned.result().models[0].gone == (1,)
    assert (done.version, done.same_as, done.published, done.after) == (4, None, True, (4,))
    assert done.same_in_trash == 1


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_promote_when_what_was_judged_changed_with_its_times_kept_is_refused(
    name: str, tmp_path: Path
) -> None:
    root, steps = tmp_path / "serving", tmp_path / "steps"
    new_repository(root)
    slow = Disk(Faults.parse(f"record={steps},intent.before-write=sleep:1"))
    file = run_with(tmp_path / "run", offset=2.0, variables=True) / "saved_model" / name
    with ThreadPoolExecutor() as pool:
        promoted = pool.submit(
            servingrepo.open(root, disk=slow).promote, tmp_path / "run", model="half", smoke=False
        )
        while not (steps.exists() and "intent.before-write" in steps.read_text()):
            time.sleep(0.01)
        facts, data = file.stat(), bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        with pytest.raises(SourceChanged, match=f"{name} changed between its inspection and"):
            promoted.result()
    assert not list((root / "models" / "half").glob("[0-9]*"))


def test_promote_when_the_content_is_marked_bad_is_refused(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    first = run_with(tmp_path / "a", offset=2.0)
    repo.promote(first, model="half", smoke=False)
    repo.promote(run_with(tmp_path / "b", offset=3.0), model="half", smoke=False)
    repo.mark_bad("half@1", message="wrong labels")
    with pytest.raises(VersionBad, match="wrong labels"):
        repo.promote(first, model="half", smoke=False)


def test_promote_when_the_model_is_held_publishes_but_does_not_serve(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=2.0), model="half", smoke=False)
    repo.hold("half", message="black friday")
    done = repo.promote(run_with(tmp_path / "b", offset=3.0), model="half", smoke=False)
    assert (done.version, done.published, done.served) == (2, True, False)
    assert (done.after, done.held) == ((1,), "black friday")
    repo.release_hold("half")
    assert repo.promote(run_with(tmp_path / "c", offset=4.0), model="half", smoke=False).served


def test_promote_with_a_number_takes_it_and_refuses_used_ones(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    done = repo.promote(run_with(tmp_path / "a", offset=2.0), model="half", smoke=False, version=7)
    assert done.version == 7
    for used in (1, 7):
        with pytest.raises(NumberUsed, match="up to 7"):
            repo.promote(
                run_with(tmp_path / f"b{used}", offset=3.0), model="half", smoke=False, version=used
            )


def test_promote_in_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "a", offset=2.0)
    before = sorted(path for path in tmp_path.rglob("*"))
    done = repo.promote(run, model="half", dry_run=True)
    assert (done.version, done.published, done.dry_run, done.after) == (1, False, True, (1,))
    assert done.proof is None
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_promote_when_links_leave_the_run_is_refused_with_all_of_them(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "a", offset=2.0)
    (tmp_path / "secret").write_text("x")
    for name in ("one", "two"):
        (run / "saved_model" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeExport) as refused:
        repo.promote(run, model="half", smoke=False)
    assert len(refused.value.problems) == 2
    assert not (tmp_path / "serving" / "models" / "half").exists()


def test_promote_when_links_stay_in_the_run_copies_what_they_point_to(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "a", offset=2.0)
    (run / "words.txt").write_text("a b c")
    (run / "saved_model" / "assets").mkdir()
    (run / "saved_model" / "assets" / "words.txt").symlink_to(run / "words.txt")
    repo.promote(run, model="half", smoke=False)
    copied = tmp_path / "serving/models/half/1/assets/words.txt"
    assert not copied.is_symlink()
    assert copied.read_text() == "a b c"


def test_promote_when_the_model_folder_is_a_flat_saved_model_is_refused(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    flat = tmp_path / "serving" / "models" / "half"
    run_with(tmp_path / "a", offset=2.0)
    (tmp_path / "a" / "saved_model").rename(flat)
    with pytest.raises(RepositoryDamaged, match="without a version number"):
        repo.promote(run_with(tmp_path / "b", offset=3.0), model="half", smoke=False)
    assert (flat / "saved_model.pb").exists()


def test_promote_when_the_config_was_edited_by_hand_is_refused_before_the_copy(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=2.0), model="half", smoke=False)
    config = repo.value.layout.config
    config.write_text(config.read_text().replace("versions: 1", "versions: 9"))
    with pytest.raises(ConfigEdited) as refused:
        repo.promote(run_with(tmp_path / "b", offset=3.0), model="half", smoke=False)
    assert any("versions: 9" in line for line in refused.value.problems)
    assert "versions: 9" in config.read_text()


def test_promote_when_saved_model_pb_is_truncated_is_refused(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "a", offset=2.0)
    graph = run / "saved_model" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:100])
    with pytest.raises(DamagedExport, match=str(run)):
        repo.promote(run, model="half", smoke=False)


def test_promote_of_a_graph_that_is_not_the_fingerprints_is_refused(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "run", offset=2.0, variables=True, fingerprint=True)
    run_with(tmp_path / "run", offset=2.0, variables=True, device="/device:CPU:0")
    with pytest.raises(DamagedExport, match="saved_model_checksum"):
        repo.promote(run, model="half", smoke=False)
    assert repo.models() == ()
    run_with(tmp_path / "run", offset=2.0, variables=True, fingerprint=True)
    repo.promote(run, model="half", smoke=False)
    fingerprint = repo.show_version("half@1").fingerprint
    assert fingerprint is not None
    assert fingerprint.field("saved_model_checksum").verdict == "matches"


def test_promote_serve_of_content_that_is_there_does_not_re_point_a_held_model(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "repo")
    old = run_with(tmp_path / "old", offset=1.0)
    repo.promote(old, model="m", smoke=False)
    repo.promote(run_with(tmp_path / "new", offset=2.0), model="m", smoke=False)
    repo.hold("m", message="freeze")
    again = repo.promote(old, model="m", smoke=False, serve=True)
    assert (again.same_as, again.served, again.held) == (1, False, "freeze")
    assert repo.show("m").served == 2


def test_promote_of_a_damaged_tensor_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "run", offset=2.0, variables=True)
    data = run / "saved_model/variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedExport, match="tensor slope"):
        repo.promote(run, model="half", smoke=False)
    assert not list((tmp_path / "serving/models").glob("half/[0-9]*"))
    run_with(tmp_path / "run", offset=2.0, variables=True)
    repo.promote(run, model="half", smoke=False)
    tensors = repo.show_version("half@2").tensors
    assert tensors is not None
    assert (tensors.checked, tensors.tensors, tensors.size) == (2, 2, 8)
