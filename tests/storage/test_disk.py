from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoPermission, NoSpace, StorageFailed
from servingrepo.storage.disk import (
    Disk,
    free_bytes,
    rename_without_replacing,
    translate,
    whole_lines_end,
)
from servingrepo.storage.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess


def failing(plan: str) -> Disk:
    return Disk(faults=Faults.parse(plan))


# replace_file -------------------------------------------------------------------------------------


def test_a_reader_in_a_loop_never_sees_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    disk = Disk()
    texts = [bytes([65 + number]) * (200_000 + number) for number in range(26)]
    disk.replace_file(path, texts[0], step="s")
    stop = threading.Event()
    seen: set[bytes] = set()
    torn: list[int] = []

    def read() -> None:
        while not stop.is_set():
            data = path.read_bytes()
            if data in texts:
                seen.add(data[:1])
            else:
                torn.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for text in texts * 4:
            disk.replace_file(path, text, step="s")
    finally:
        stop.set()
        reader.join()
    assert not torn
    assert len(seen) > 1


def test_replace_file_makes_files_0644_whatever_the_umask(
    tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(0o077)
    Disk().replace_file(tmp_path / "file", b"x", step="s")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["s.before-write", "s.before-sync", "s.before-rename"])
@pytest.mark.parametrize(
    ("fault", "error"), [("ENOSPC", NoSpace), ("EIO", StorageFailed), ("EACCES", NoPermission)]
)
def test_a_replacement_that_fails_leaves_the_old_file_and_nothing_else(
    step: str, fault: str, error: type[StorageFailed], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error, match=str(path)):
        failing(f"{step}={fault}").replace_file(path, b"new", step="s")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_replacement_that_is_interrupted_leaves_no_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        failing("s.before-rename=int").replace_file(tmp_path / "file", b"new", step="s")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(small_disk: Path) -> None:
    path = small_disk / "file"
    Disk().replace_file(path, b"old", step="s")
    with pytest.raises(NoSpace) as caught:
        Disk().replace_file(path, bytes(1_000_000), step="s")
    assert str(path) in caught.value.message
    assert path.read_bytes() == b"old"
    assert [one.name for one in small_disk.iterdir()] == ["file"]


def test_a_left_temporary_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"a long text that a crash left")
    Disk().replace_file(tmp_path / "file", b"new", step="s")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    (tmp_path / ".file.tmp").symlink_to(victim)
    with pytest.raises(StorageFailed):
        Disk().replace_file(tmp_path / "file", b"new", step="s")
    assert victim.read_bytes() == b"keep"


def test_replace_file_syncs_the_file_before_and_the_directory_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real = os.fsync

    def watching(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        done.append(f"{kind}, {'renamed' if (tmp_path / 'file').exists() else 'not renamed'}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watching)
    Disk().replace_file(tmp_path / "file", b"new", step="s")
    assert done == ["file, not renamed", "directory, renamed"]


def test_a_directory_without_write_permission_is_refused(
    open_folder: Path, as_nobody: Callable[[str], CompletedProcess[str]]
) -> None:
    done = as_nobody(
        "from pathlib import Path\n"
        "from servingrepo.errors import NoPermission\n"
        "from servingrepo.storage.disk import Disk\n\n"
        "try:\n"
        f"    Disk().replace_file(Path({str(open_folder / 'file')!r}), b'', step='s')\n"
        "except NoPermission as error:\n"
        "    print(error.message, error.hint)\n"
    )
    assert str(open_folder) in done.stdout, done.stderr
    assert "uid 65534" in done.stdout


# append_lines -------------------------------------------------------------------------------------


def test_append_lines_appends(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for line in (b"one", b"two"):
        Disk().append_lines(path, [line], step="s")
    assert path.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("torn", [b"tor", b"x" * 200_000])
def test_append_lines_cuts_a_torn_tail(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n" + torn)
    Disk().append_lines(path, [b"two"], step="s")
    assert path.read_bytes() == b"one\ntwo\n"


def test_append_lines_to_a_file_that_is_one_torn_line_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"torn")
    Disk().append_lines(path, [b"one"], step="s")
    assert path.read_bytes() == b"one\n"


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "int"])
def test_an_append_that_fails_leaves_no_part_of_a_line(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n")
    with pytest.raises((StorageFailed, KeyboardInterrupt)):
        failing(f"s.before-sync={fault}").append_lines(path, [b"two"], step="s")
    assert path.read_bytes() == b"one\n"


def test_an_append_to_a_full_disk_leaves_no_part_of_a_line(small_disk: Path) -> None:
    path = small_disk / "lines"
    path.write_bytes(b"one\n")
    with pytest.raises(NoSpace):
        Disk().append_lines(path, [b"x" * 1_000_000], step="s")
    assert path.read_bytes() == b"one\n"


TOGETHER = (b'{"a":1}', b'{"b":2}', b'{"c":3}')
"""Lines that are written at once."""


def test_lines_written_at_once_say_where_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    Disk().append_lines(path, TOGETHER[:1], step="s")
    Disk().append_lines(path, TOGETHER[1:], step="s")
    assert path.read_bytes() == (b'{"a":1}\n{"b":2,"written_from":8}\n{"c":3,"written_from":8}\n')


@pytest.mark.parametrize("zeros", [slice(0, 3), slice(0, 30), slice(2, 60), slice(30, 40)])
def test_zeros_in_lines_written_at_once_cut_all_of_them(zeros: slice, tmp_path: Path) -> None:
    """A later block may be on the disk before an earlier one."""
    path = tmp_path / "lines"
    Disk().append_lines(path, [b"{}"], step="s")
    Disk().append_lines(path, TOGETHER, step="s")
    whole = path.read_bytes()
    torn = bytearray(whole[3:])
    torn[zeros] = bytes(len(torn[zeros]))
    path.write_bytes(whole[:3] + torn)
    Disk().append_lines(path, [b"{}"], step="s")
    assert path.read_bytes() == b"{}\n{}\n"


def test_whole_lines_written_at_once_stay_without_their_last(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    Disk().append_lines(path, TOGETHER, step="s")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    Disk().append_lines(path, TOGETHER[:1], step="s")
    assert path.read_bytes().splitlines()[:2] == whole.splitlines()[:2]
    assert path.read_bytes().endswith(b'"written_from":0}\n{"a":1}\n')


@pytest.mark.parametrize("offset", [0, 3, 900])
def test_zeros_before_lines_written_at_once_are_no_tear(offset: int, tmp_path: Path) -> None:
    """Somebody may have shortened the file, so that the place is another one now."""
    path = tmp_path / "lines"
    path.write_bytes(b'\0ab\n{"b":2,"written_from":%d}\n' % (offset or 4))
    with path.open("rb") as stream:
        assert whole_lines_end(stream.fileno()) == path.stat().st_size


def test_history_is_readable_by_others_whatever_the_umask(
    tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(0o077)
    Disk().append_lines(tmp_path / "lines", [b"one"], step="s")
    assert stat.S_IMODE((tmp_path / "lines").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"a", 0),
        (b"a\n", 2),
        (b"a\nb", 2),
        (b"\n" + b"b" * 70_000, 1),
        (b"a\n\0\0b\n", 2),
        (b"a\n" + bytes(70_000) + b"\n", 2),
        (b"\0\n", 0),
    ],
)
def test_whole_lines_end_is_behind_the_last_newline(data: bytes, end: int, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(data)
    with path.open("rb") as stream:
        assert whole_lines_end(stream.fileno()) == end


# publish_directory --------------------------------------------------------------------------------


def staged(tmp_path: Path) -> Path:
    source = tmp_path / "staging" / "1"
    source.mkdir(parents=True)
    (source / "file").write_bytes(b"new")
    return source


def test_publish_directory_renames(tmp_path: Path) -> None:
    source = staged(tmp_path)
    Disk().publish_directory(source, tmp_path / "1", step="c1")
    assert (tmp_path / "1" / "file").read_bytes() == b"new"
    assert not source.exists()


def make_directory(target: Path) -> None:
    target.mkdir()


def make_full_directory(target: Path) -> None:
    target.mkdir()
    (target / "old").write_bytes(b"")


def make_file(target: Path) -> None:
    target.write_bytes(b"")


def make_broken_link(target: Path) -> None:
    target.symlink_to("nowhere")


OBSTACLES = [make_directory, make_full_directory, make_file, make_broken_link]


@pytest.mark.parametrize("make", OBSTACLES)
def test_publish_directory_refuses_a_target_that_exists_even_an_empty_directory(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    source, target = staged(tmp_path), tmp_path / "1"
    make(target)
    before = target.lstat()
    with pytest.raises(FileExistsError):
        Disk().publish_directory(source, target, step="c1")
    assert (source / "file").exists()
    assert target.lstat() == before


@pytest.mark.parametrize("make", OBSTACLES)
def test_a_file_system_without_renameat2_refuses_a_target_that_exists_too(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_renameat2(monkeypatch)
    source, target = staged(tmp_path), tmp_path / "1"
    make(target)
    with pytest.raises(FileExistsError):
        rename_without_replacing(source, target)
    assert (source / "file").exists()


def test_a_file_system_without_renameat2_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_renameat2(monkeypatch)
    rename_without_replacing(staged(tmp_path), tmp_path / "1")
    assert (tmp_path / "1" / "file").exists()


def without_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as NFS does, which cannot be mounted here: renameat2 with flags is EINVAL."""

    class FakeLibrary:
        def renameat2(self, *_: object) -> int:
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: FakeLibrary())
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.EINVAL)


def test_a_parent_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rename_without_replacing(staged(tmp_path), tmp_path / "missing" / "1")


# the rest -----------------------------------------------------------------------------------------


def test_make_directory_makes_parents_0755_whatever_the_umask(
    tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(0o077)
    Disk().make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o755


def test_make_directory_leaves_one_that_exists_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    Disk().make_directory(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_directory_that_could_not_be_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        failing("make-directory.before-rename=EIO").make_directory(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_somebody_else_makes_meanwhile_is_taken_as_it_is(tmp_path: Path) -> None:
    slow = failing("make-directory.before-rename=sleep:0.5")
    thread = threading.Thread(target=slow.make_directory, args=(tmp_path / "a",))
    thread.start()
    while not list(tmp_path.iterdir()):
        pass
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"")
    thread.join()
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "file").exists()


def test_an_unfinished_directory_that_recovery_takes_away_is_made_again(tmp_path: Path) -> None:
    slow = failing("make-directory.before-rename@1=sleep:0.5")
    thread = threading.Thread(target=slow.make_directory, args=(tmp_path / "a",))
    thread.start()
    while not Disk().remove_unfinished(tmp_path):
        pass
    thread.join()
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_remove_unfinished_takes_empty_directories_of_that_name_alone(tmp_path: Path) -> None:
    for name in (".a.0123abcd.tmp", ".full.0123abcd.tmp/x", ".other.tmp", "a"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".file.0123abcd.tmp").write_bytes(b"")
    assert Disk().remove_unfinished(tmp_path) == (".a.0123abcd.tmp",)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_scratch_directory_gets_its_mode_back(
    tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(0o077)
    (tmp_path / "a").mkdir()
    Disk().make_scratch_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o755


def test_remove_tree_removes_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("kept")
    Disk().remove_tree(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept" / "file").exists()


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    Disk().remove_tree(tmp_path / "gone")
    Disk().remove_file(tmp_path / "gone")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EACCES, NoPermission),
        (errno.EPERM, NoPermission),
        (errno.EROFS, NoPermission),
        (errno.EIO, StorageFailed),
    ],
)
def test_errors_of_the_system_become_ours_with_path_and_hint(
    number: int, kind: type[StorageFailed], tmp_path: Path
) -> None:
    error = translate(OSError(number, os.strerror(number)), "write", tmp_path)
    assert type(error) is kind
    assert error.message == f"cannot write {tmp_path}: {os.strerror(number)}"
    assert error.hint


def test_free_bytes_is_what_the_file_system_has_left(small_disk: Path) -> None:
    before = free_bytes(small_disk)
    assert before <= 256 * 1024
    (small_disk / "file").write_bytes(bytes(100_000))
    assert before - free_bytes(small_disk) >= 100_000


# write_files, remove_files ------------------------------------------------------------------------


def test_many_files_appear_whole_with_their_folders(tmp_path: Path) -> None:
    files = [(tmp_path / f"m{number % 3}" / f"{number}.json", b"x" * number) for number in range(9)]
    before = os.umask(0o077)
    try:
        Disk().write_files(files, step="s")
    finally:
        os.umask(before)
    for path, data in files:
        assert path.read_bytes() == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    Disk().remove_files([path for path, _ in files])
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_many_files_are_removed_with_none_left(tmp_path: Path) -> None:
    files = [(tmp_path / f"m{number % 7}" / f"{number}", b"x") for number in range(3000)]
    Disk().write_files(iter(files), step="s")
    Disk().remove_files(path for path, _ in [*files, (tmp_path / "m0" / "gone", b"")])
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_many_files_that_fail_leave_no_temporary_one(tmp_path: Path) -> None:
    files = [(tmp_path / "m" / f"{number}", b"x") for number in range(4)]
    with pytest.raises(NoSpace):
        failing("s.before-write@3=ENOSPC").write_files(files, step="s")
    assert list((tmp_path / "m").iterdir()) == []


def test_a_link_in_the_place_of_one_of_many_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / ".file.tmp").symlink_to(other)
    with pytest.raises(StorageFailed):
        Disk().write_files([(tmp_path / "file", b"x")], step="s")
    assert other.read_text() == "mine"
