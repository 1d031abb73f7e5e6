from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import AmbiguousExport
from servingrepo.runs import checkpoints, listing
from servingrepo.runs.listing import list_names, read_end, read_start
from servingrepo.runs.missing import nothing_found
from servingrepo.runs.mounts import network_mounts
from servingrepo.runs.savedmodels import candidates
from servingrepo.runs.scan import _picked

if TYPE_CHECKING:
    from pathlib import Path


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def test_a_whole_listing_is_complete_and_top_first(tmp_path: Path) -> None:
    seen = list_names(str(tree(tmp_path, "a/b/1", "2", "c/3")))
    assert [(each.path, each.depth) for each in seen.folders] == [
        (".", 0), ("a", 1), ("c", 1), ("a/b", 2),
    ]  # fmt: skip
    assert (seen.complete, seen.entries) == (True, 6)


def test_nothing_below_the_last_level_is_listed(tmp_path: Path) -> None:
    seen = list_names(str(tree(tmp_path, "1/2/3/f")), max_depth=2)
    assert [each.path for each in seen.folders] == [".", "1", "1/2"]


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_a_listing_of_limited_entries_is_incomplete(tmp_path: Path, limit: int) -> None:
    tree(tmp_path, *(f"{folder}/{file}" for folder in "abc" for file in "123"))
    seen = list_names(str(tmp_path), max_entries=limit)
    assert seen.entries <= limit
    assert not seen.complete


def test_a_listing_ends_when_time_is_up(tmp_path: Path) -> None:
    assert not list_names(str(tree(tmp_path, "a/b")), max_seconds=-1).complete


def test_an_incomplete_listing_takes_no_nested_export(
    tmp_path: Path,
) -> None:
    tree(tmp_path, "a/b/saved_model.pb", "z/y/x/1")
    seen = list_names(str(tmp_path), max_entries=5)
    assert not seen.complete
    assert [each.path for each in candidates(seen)] == ["a/b"]
    with pytest.raises(AmbiguousExport, match="a SavedModel and maybe more"):
        _picked("run", seen, candidates(seen))


def test_links_out_are_listed_and_not_followed(tmp_path: Path) -> None:
    run = tree(tmp_path / "run", "inside")
    tree(tmp_path, "run2/secret")
    (run / "out").symlink_to("../run2")
    (run / "nowhere").symlink_to("missing")
    (run / "in").symlink_to("inside")
    seen = list_names(str(run))
    assert [each[0] for each in seen.links_out] == ["nowhere", "out"]
    assert seen.folders[0].files == {"inside": f"{run}/inside", "in": f"{run}/inside"}


def test_a_listing_of_too_many_links_is_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_MAX_LINKS", 3)
    tree(tmp_path, "f")
    for number in range(4):
        (tmp_path / f"l{number}").symlink_to("f")
    assert not list_names(str(tmp_path)).complete


def test_read_when_file_is_longer_then_only_its_start_or_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    assert (read_start(str(path), 3), read_end(str(path), 3)) == (b"012", b"789")
    assert (read_start(str(path), 99), read_end(str(path), 99)) == (b"0123456789",) * 2


def test_read_when_not_a_regular_file_then_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "f").write_bytes(b"x")
    for name in ("link", ".", "missing"):
        assert read_start(str(tmp_path / name), 9) == b""


@pytest.mark.timeout(10)
def test_scan_when_a_folder_holds_thousands_of_checkpoints_then_soon_done(tmp_path: Path) -> None:
    for number in range(4_000):
        (tmp_path / f"ckpt-{number}.index").touch()
        (tmp_path / f"ckpt-{number}.data-00000-of-00002").touch()
    (found,) = checkpoints.recognise(list_names(str(tmp_path)).folders[0])
    assert found.count == 4_000


def test_network_mounts_are_read_from_the_kernel_s_table() -> None:
    table = (
        "36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/sda rw\n"
        "40 36 0:41 / /data/my\\040run/mnt rw,relatime shared:2 master:1 - nfs4 server:/x rw\n"
        "41 36 0:42 / /gone rw - fuse.sshfs me@host: rw\n"
        "42 36 0:43 / /tmp rw - tmpfs tmpfs rw\n"
        "broken\n"
    )
    assert network_mounts(table) == {"/data/my run/mnt", "/gone"}


def test_a_network_mount_is_named_and_not_entered(
    tmp_path: Path,
) -> None:
    tree(tmp_path, "mnt/saved_model.pb", "near/file")
    seen = list_names(str(tmp_path), mounts=frozenset({str(tmp_path / "mnt")}))
    assert [each.path for each in seen.folders] == [".", "near"]
    assert (seen.unreadable, seen.complete) == (("mnt",), False)
    # A run that is given on such a mount is looked at all the same.
    assert (
        list_names(str(tmp_path / "mnt"), mounts=frozenset({str(tmp_path / "mnt")}))
        .folders[0]
        .files
    )


def test_an_export_beside_full_folders_is_seen(
    tmp_path: Path,
) -> None:
    tree(tmp_path, *(f"data{folder}/{file}" for folder in range(5) for file in range(1500)))
    tree(tmp_path, "logs/train/events", "saved_model/saved_model.pb", "runs/1/model/saved_model.pb")
    for number in range(1100):
        (tmp_path / f"file{number}").touch()
    seen = list_names(str(tmp_path), max_entries=7_000)
    assert not seen.complete
    assert [each.path for each in candidates(seen)] == ["runs/1/model", "saved_model"]
    assert "logs/train" in [each.path for each in seen.folders]
    whole = list_names(str(tmp_path))
    assert whole.complete
    assert whole.entries == 5 * 1500 + 1100 + 8 + 6
    assert whole.folders[0].path == "."
    assert len({each.path for each in whole.folders}) == len(whole.folders) == 12
    assert len(next(each for each in whole.folders if each.path == "data3").files) == 1500


def test_nothing_is_said_of_what_was_not_opened(tmp_path: Path) -> None:
    tree(tmp_path, *(f"data/{file}" for file in range(20)))
    seen = list_names(str(tmp_path), max_entries=10)
    error = nothing_found("run", seen, ())
    assert str(error) == "no SavedModel in the listed part of run, 10 entries"
    assert "--saved-model" in str(error.hint)
