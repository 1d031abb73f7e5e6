from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoSpace, SourceChanged, StorageFailed, UnsafeExport
from servingrepo.storage.copying import copy_file, copy_tree, hash_source, need_space
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.storage.hashing import content_digest, hash_tree
from servingrepo.storage.progress import silent
from servingrepo.storage.tree import SourceTree, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with a large, a small, an empty and a linked file, and directories with and without files."""
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True, mode=0o700)
    (source / "empty" / "deeper").mkdir(parents=True)
    (source / "large").write_bytes(os.urandom(9_000_001))
    (source / "variables" / "small").write_bytes(b"small")
    (source / "variables" / "none").write_bytes(b"")
    (source / "linked").symlink_to("variables/small")
    (source / "large").chmod(0o600)
    (source / "variables" / "small").chmod(0o4_777)
    return source


def tree_of(source: Path) -> SourceTree:
    return read_tree(source, boundary=source)


def test_a_copy_its_source_and_manifest_agree(source: Path, tmp_path: Path) -> None:
    tree = tree_of(source)
    made = copy_tree(tree, tmp_path / "copy", disk=Disk())
    assert made == hash_tree(tmp_path / "copy")
    assert made == hash_source(tree)
    assert [one.path for one in made.files] == [
        "large",
        "linked",
        "variables/none",
        "variables/small",
    ]
    assert made.directories == ("empty", "empty/deeper", "variables")


def test_a_copy_has_the_bytes_of_its_source_and_no_links(source: Path, tmp_path: Path) -> None:
    copy_tree(tree_of(source), tmp_path / "copy", disk=Disk())
    for path in ("large", "variables/none", "variables/small", "linked"):
        assert (tmp_path / "copy" / path).read_bytes() == (source / path).read_bytes()
    assert not (tmp_path / "copy" / "linked").is_symlink()


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_files_are_0644_and_directories_0755_whatever_the_umask(
    mask: int, source: Path, tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(mask)
    copy_tree(tree_of(source), tmp_path / "copy", disk=Disk())
    for path in (tmp_path / "copy", *(tmp_path / "copy").rglob("*")):
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_progress_is_told_every_byte_once(source: Path, tmp_path: Path) -> None:
    told: list[int] = []
    tree = tree_of(source)
    copy_tree(tree, tmp_path / "copy", disk=Disk(), progress=told.append)
    assert sum(told) == tree.size


def append(source: Path) -> None:
    with (source / "variables" / "small").open("ab") as stream:
        stream.write(b"!")


def touch(source: Path) -> None:
    os.utime(source / "variables" / "small", ns=(1, 1))


def add(source: Path) -> None:
    (source / "variables" / "new").write_bytes(b"")


def add_directory(source: Path) -> None:
    (source / "later").mkdir()


def delete(source: Path) -> None:
    (source / "variables" / "small").unlink()


def delete_directory(source: Path) -> None:
    for path in (source / "variables").iterdir():
        path.unlink()
    (source / "variables").rmdir()


def replace(source: Path) -> None:
    """The same size and time, another file: what an upload that renames does."""
    small = source / "variables" / "small"
    facts = small.stat()
    other = source / "variables" / "other"
    other.write_bytes(b"SMALL")
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.rename(small)


def swap_for_a_link(source: Path) -> None:
    small = source / "variables" / "small"
    small.unlink()
    small.symlink_to("/etc/hostname")


def swap_for_a_fifo(source: Path) -> None:
    """Whoever opens it for reading waits for a writer, who comes here after five seconds."""
    small = source / "variables" / "small"
    small.unlink()
    os.mkfifo(small)
    writer = threading.Timer(5, _write_to, [small])
    writer.daemon = True
    writer.start()


def _write_to(fifo: Path) -> None:
    with suppress(OSError):
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


CHANGES = [
    append,
    touch,
    add,
    add_directory,
    delete,
    delete_directory,
    replace,
    swap_for_a_link,
    swap_for_a_fifo,
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changed_before_it_was_read_is_refused(
    change: Callable[[Path], None], source: Path, tmp_path: Path
) -> None:
    tree = tree_of(source)
    change(source)
    start = time.monotonic()
    with pytest.raises((SourceChanged, UnsafeExport)):
        copy_tree(tree, tmp_path / "copy", disk=Disk())
    assert time.monotonic() - start < 4


@pytest.mark.timeout(20)
@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_while_it_is_copied_is_refused(
    change: Callable[[Path], None], source: Path, tmp_path: Path
) -> None:
    (source / "linked").unlink()
    tree = tree_of(source)
    done: list[int] = []

    def when_the_first_bytes_are_read(count: int) -> None:
        if not done:
            done.append(count)
            change(source)

    with pytest.raises((SourceChanged, UnsafeExport)) as caught:
        copy_tree(
            tree,
            tmp_path / "copy",
            disk=Disk(),
            progress=when_the_first_bytes_are_read,
            threads=1,
        )
    if isinstance(caught.value, SourceChanged):
        assert str(source) in caught.value.message
        assert caught.value.retryable


def test_a_link_in_place_of_a_file_is_refused(source: Path, tmp_path: Path) -> None:
    """Opening may do things (a tape rewinds): what was a file is opened only if it still is one."""
    file = next(one for one in tree_of(source).files if one.path == "large")
    (source / "large").rename(source / "moved")
    (source / "large").symlink_to("moved")
    with pytest.raises(SourceChanged):
        copy_file(file, tmp_path / "copy", disk=Disk(), progress=lambda _: None)


def test_a_file_that_grows_while_it_is_read_is_refused(source: Path, tmp_path: Path) -> None:
    file = next(one for one in tree_of(source).files if one.path == "large")

    def grow(_: int) -> None:
        with (source / "large").open("ab") as stream:
            stream.write(b"!")

    with pytest.raises(SourceChanged, match="large"):
        copy_file(file, tmp_path / "copy", disk=Disk(), progress=grow)


@pytest.mark.parametrize("change", [touch, append])
def test_a_file_changed_while_it_is_read_is_refused(
    change: Callable[[Path], None], source: Path, tmp_path: Path
) -> None:
    file = next(one for one in tree_of(source).files if one.path == "variables/small")
    with pytest.raises(SourceChanged, match="small"):
        copy_file(file, tmp_path / "copy", disk=Disk(), progress=lambda _: change(source))


def test_a_tree_that_does_not_fit_is_refused_early(source: Path, small_disk: Path) -> None:
    with pytest.raises(NoSpace) as caught:
        need_space(tree_of(source), small_disk)
    assert str(source) in caught.value.message
    assert str(small_disk) in caught.value.message
    assert list(small_disk.iterdir()) == []


def test_a_tree_that_fits_is_not_refused(source: Path, tmp_path: Path) -> None:
    need_space(tree_of(source), tmp_path)


def test_a_full_disk_during_a_copy_is_no_space(source: Path, small_disk: Path) -> None:
    with pytest.raises(NoSpace, match="large"):
        copy_tree(tree_of(source), small_disk / "copy", disk=Disk())


CHUNK = 2 << 20
SIZES = [2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK + 4096, 40 << 20, (40 << 20) + 4097]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("disk", ["ext4_disk", "cloning_disk", "tmp_path"])
def test_large_files_are_copied_whole(
    disk: str, size: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Sizes at which the bytes fill the last chunk, the last block, or neither."""
    source = tmp_path / "run"
    source.mkdir()
    data = os.urandom(size)
    (source / "data").write_bytes(data)
    copy: Path = request.getfixturevalue(disk) / "copy"
    shown = bytearray()
    made = copy_tree(tree_of(source), copy, disk=Disk(), watch=lambda _: shown.extend)
    assert (copy / "data").read_bytes() == data
    assert shown == data
    assert made == hash_tree(copy)


def is_cached(file: Path, offset: int) -> bool:
    """Tell whether a byte of a file is in the page cache: otherwise the disk would be waited for."""
    with file.open("rb", buffering=0) as stream:
        try:
            return os.preadv(stream.fileno(), [bytearray(1)], offset, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False


def test_a_large_copy_leaves_the_page_cache_to_others(tmp_path: Path, ext4_disk: Path) -> None:
    source = tmp_path / "run"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(5 * CHUNK + 1))
    (source / "small").write_bytes(b"small")
    copy_tree(tree_of(source), ext4_disk / "copy", disk=Disk())
    assert is_cached(ext4_disk / "copy/small", 0)
    assert not any(is_cached(ext4_disk / "copy/large", CHUNK * chunk) for chunk in range(5))


@pytest.mark.parametrize("size", [20 << 20, 40 << 20])
def test_a_disk_full_of_large_files_is_no_space(size: int, tmp_path: Path, ext4_disk: Path) -> None:
    source = tmp_path / "run"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(size))
    free = shutil.disk_usage(ext4_disk).free - (10 << 20)
    with (ext4_disk / "others").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, free)
    with pytest.raises(NoSpace, match="large"):
        copy_tree(tree_of(source), ext4_disk / "copy", disk=Disk())


def test_a_target_that_exists_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(StorageFailed):
        copy_tree(tree_of(source), tmp_path / "copy", disk=Disk())
    assert list((tmp_path / "copy").iterdir()) == []


def test_a_copy_writes_through_no_link(source: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    target = tmp_path / "target"
    target.symlink_to(victim)
    file = next(one for one in tree_of(source).files if one.path == "variables/small")
    with pytest.raises(StorageFailed):
        copy_file(file, target, disk=Disk(), progress=silent)
    assert victim.read_bytes() == b"keep"


@pytest.mark.parametrize(
    "step", ["copy.before-write@2", "copy.before-sync@1", "copy.before-directory-sync@1"]
)
def test_an_error_of_the_disk_ends_the_copy_with_a_clear_error(
    step: str, source: Path, tmp_path: Path
) -> None:
    disk = Disk(faults=Faults.parse(f"{step}=EIO"))
    with pytest.raises(StorageFailed, match=os.strerror(errno.EIO)) as caught:
        copy_tree(tree_of(source), tmp_path / "copy", disk=disk)
    assert str(tmp_path) in caught.value.message


def test_an_error_while_reading_names_the_source_and_not_the_target(
    source: Path, open_folder: Path, as_nobody: Callable[[str], CompletedProcess[str]]
) -> None:
    tree = open_folder / "source"
    tree.mkdir()
    (tree / "secret").write_bytes(b"1")
    (tree / "secret").chmod(0o600)
    target = open_folder / "target"
    target.mkdir(mode=0o777)
    target.chmod(0o777)
    done = as_nobody(
        "from pathlib import Path\n"
        "from servingrepo.errors import NoPermission\n"
        "from servingrepo.storage.copying import copy_tree\n"
        "from servingrepo.storage.disk import Disk\n"
        "from servingrepo.storage.tree import read_tree\n\n"
        f"root = Path({str(tree)!r})\n"
        "tree = read_tree(root, boundary=root)\n"
        "try:\n"
        f"    copy_tree(tree, Path({str(target / 'copy')!r}), disk=Disk())\n"
        "except NoPermission as error:\n"
        "    print(error.message)\n"
    )
    assert str(tree / "secret") in done.stdout, done.stderr


def test_a_target_that_may_not_be_written_is_no_permission(
    open_folder: Path, as_nobody: Callable[[str], CompletedProcess[str]]
) -> None:
    (open_folder / "source").mkdir()
    done = as_nobody(
        "from pathlib import Path\n"
        "from servingrepo.errors import NoPermission\n"
        "from servingrepo.storage.copying import copy_tree\n"
        "from servingrepo.storage.disk import Disk\n"
        "from servingrepo.storage.tree import read_tree\n\n"
        f"root = Path({str(open_folder)!r})\n"
        "tree = read_tree(root / 'source', boundary=root)\n"
        "try:\n"
        "    copy_tree(tree, root / 'copy', disk=Disk())\n"
        "except NoPermission as error:\n"
        "    print(error.message, error.hint)\n"
    )
    assert str(open_folder / "copy") in done.stdout, done.stderr
    assert "uid 65534" in done.stdout


def test_every_file_and_directory_is_synced_before_the_copy_returns(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[tuple[int, int]] = set()
    real = os.fsync

    def watching(descriptor: int) -> None:
        facts = os.fstat(descriptor)
        synced.add((facts.st_dev, facts.st_ino))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watching)
    copy_tree(tree_of(source), tmp_path / "copy", disk=Disk())
    paths = [tmp_path / "copy", *(tmp_path / "copy").rglob("*")]
    assert {(one.stat().st_dev, one.stat().st_ino) for one in paths} <= synced


def test_content_is_named_by_paths_bytes_and_directories(tmp_path: Path) -> None:
    def digest(name: str, make: Callable[[Path], object]) -> str:
        root = tmp_path / name
        root.mkdir()
        (root / "a").write_bytes(b"1")
        make(root)
        return content_digest(hash_tree(root))

    plain = digest("plain", Path.exists)
    assert digest("same", Path.exists) == plain
    others = {
        digest("bytes", lambda root: (root / "a").write_bytes(b"2")),
        digest("path", lambda root: (root / "a").rename(root / "b")),
        digest("more", lambda root: (root / "b").write_bytes(b"")),
        digest("directory", lambda root: (root / "b").mkdir()),
        digest("deeper", partial(_move_down, name="a")),
    }
    assert plain not in others
    assert len(others) == 5


def _move_down(root: Path, *, name: str) -> None:
    (root / "b").mkdir()
    (root / name).rename(root / "b" / name)


def test_a_copy_shares_blocks_where_it_can(
    cloning_disk: Path,
) -> None:
    source = cloning_disk / "run"
    source.mkdir()
    data = os.urandom(50 << 20)
    (source / "data").write_bytes(data)
    (source / "small").write_bytes(b"abc")
    (source / "empty").write_bytes(b"")
    os.sync()
    free = shutil.disk_usage(cloning_disk).free
    shown = bytearray()
    made = copy_tree(
        tree_of(source),
        cloning_disk / "copy",
        disk=Disk(),
        watch=lambda path: shown.extend if path == "data" else None,
    )
    os.sync()
    assert free - shutil.disk_usage(cloning_disk).free < 5 << 20
    assert shown == data
    assert made == hash_tree(cloning_disk / "copy")
    with (source / "data").open("r+b") as stream:
        stream.write(b"other")
    assert (cloning_disk / "copy/data").read_bytes() == data
