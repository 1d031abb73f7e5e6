"""Copy a source tree, and hash the very bytes that are written.

The copy is durable when `copy_tree` returns, except for the name of its top directory. A source that changes during
the copy is an error: each file is compared with what the walk saw, before and after it is read, and the tree is
walked again at the end.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from servingrepo.errors import NoSpace, SourceChanged, StorageFailed, UnsafeExport
from servingrepo.storage.disk import (
    DIRECTORY_MODE,
    FILE_MODE,
    Disk,
    free_bytes,
    storage_errors,
    translate,
)
from servingrepo.storage.hashing import CHUNK, LARGE, hash_all
from servingrepo.storage.manifest import FileEntry, Manifest, Recipe
from servingrepo.storage.pipeline import END, Here, beside
from servingrepo.storage.progress import Progress, silent
from servingrepo.storage.reading import closed_after
from servingrepo.storage.tree import SourceFile, SourceTree, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from servingrepo.storage.pipeline import Watch

_DIRECT = 4 << 20
"""From this size on, a file is written past the page cache where `_go_direct` can do that."""

_DIRECT_CHUNK = 2 << 20
"""Bytes of one write. Each waits for the disk, so smaller ones are slower; larger ones only take more memory."""

_ALIGNED = 4096
"""Sizes and offsets of writes past the page cache are multiples of this: no disk here has larger blocks."""

_SUITED = frozenset({0xEF53, 0x58465342})
"""ext4 and XFS, as statfs(2) names them. A network file system would wait for its server at each write."""

_LIBC = ctypes.CDLL(None)
_WRITEBACK_STEP = 32 << 20
_SYNC_FILE_RANGE_WRITE = 2
_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)


def need_space(tree: SourceTree, target: Path) -> None:
    """Refuse a tree that does not fit on the file system of `target`.

    Raises:
        NoSpace: It does not fit; the message has the numbers.
    """
    block = 4096
    needed = sum(-(-file.size // block) * block for file in tree.files)
    needed += block * (len(tree.files) + len(tree.directories) + 16)
    free = free_bytes(target)
    if needed > free:
        raise NoSpace(
            f"{tree.root} needs {needed:,} bytes, but {target} has {free:,} free",
            hint="free some space on that file system: servingrepo prune --keep-last 2 --empty-trash does",
        )


def hash_source(
    tree: SourceTree, *, progress: Progress = silent, watch: Watch | None = None
) -> Manifest:
    """Hash a tree where it lies, and return the manifest that its copy would have."""
    sizes = {file.path: file.size for file in tree.files}
    sources = {file.path: file.source for file in tree.files}
    files = hash_all(sizes, sources, progress=progress, watch=watch)
    return Manifest(recipe=Recipe(), files=files, directories=tree.directories)


def copy_tree(
    tree: SourceTree,
    target: Path,
    *,
    disk: Disk,
    progress: Progress = silent,
    watch: Watch | None = None,
    threads: int = 4,
) -> Manifest:
    """Copy a tree into a new directory and return the manifest of what was written.

    `watch` gets the very bytes that are hashed and written, of the files that it asks for.

    Files get mode 0644 and directories 0755, whatever the source or the umask say: TF Serving's container may run as
    any user. There are more threads than most machines have free cores, because a thread spends much of its time in
    fsync, where it waits for the disk.

    Raises:
        SourceChanged: The source differs from what the walk saw.
        UnsafeExport: The target's file system takes two names of the source for one.
        StorageFailed: Reading or writing failed; NoSpace and NoPermission are kinds of it.
    """
    disk.step("copy.before-directories", target)
    with storage_errors("create the directory", target):
        target.mkdir(DIRECTORY_MODE)
        target.chmod(DIRECTORY_MODE)
        for directory in (target / path for path in tree.directories):
            with _new(tree, target):
                directory.mkdir(DIRECTORY_MODE)
            directory.chmod(DIRECTORY_MODE)
    stopped = threading.Event()

    def advance(count: int) -> None:
        if stopped.is_set():  # Ctrl-C must not wait for the end of a file of many gigabytes
            raise InterruptedError
        progress(count)

    largest_first = sorted(tree.files, key=lambda file: -file.size)
    with ThreadPoolExecutor(threads) as pool:
        futures = [
            pool.submit(
                copy_file, file, target / file.path, disk=disk, progress=advance, watch=watch
            )
            for file in largest_first
        ]
        try:
            with _new(tree, target):
                entries = [future.result() for future in futures]
        except BaseException:
            stopped.set()
            for future in futures:
                future.cancel()
            raise
    disk.step("copy.before-directory-sync", target)
    with storage_errors("sync", target):
        for path in (*reversed(tree.directories), "."):
            disk.sync_directory(target / path)
    with _still_there(tree.root):
        again = read_tree(tree.root, boundary=tree.boundary)
    if again != tree:
        raise _changed(tree.root)
    return Manifest(
        recipe=Recipe(),
        files=tuple(sorted(entries, key=lambda entry: entry.path)),
        directories=tree.directories,
    )


@contextmanager
def _new(tree: SourceTree, target: Path) -> Iterator[None]:
    """Explain a name that exists already in a directory that is new and ours: the source has a twin of that name.

    Raises:
        UnsafeExport: The source has names that differ only in case or in the composition of accents, and the file
            system takes them for one.
    """
    try:
        yield
    except (FileExistsError, StorageFailed) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        twins = twins_in([*tree.directories, *(file.path for file in tree.files)])
        if not isinstance(cause, FileExistsError) or not twins:
            raise
        raise UnsafeExport(
            f"{tree.root} has names that the file system of {target} takes for one",
            problems=[" and ".join(map(repr, names)) for names in twins],
            hint="rename one of each in the export, or keep the repository where case and accents count",
        ) from error


def twins_in(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of names that differ only in case or in the composition of accents."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    return tuple(tuple(sorted(twins)) for twins in groups.values() if len(twins) > 1)


@contextmanager
def _still_there(path: Path) -> Iterator[None]:
    """Explain an error of the block which means that a file of the walk is gone, or is another kind of file now.

    Raises:
        SourceChanged: This is such an error.
    """
    try:
        yield
    except (OSError, StorageFailed) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        gone = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
        if isinstance(cause, OSError) and cause.errno in gone:
            raise _changed(path) from error
        raise


def copy_file(
    file: SourceFile, target: Path, *, disk: Disk, progress: Progress, watch: Watch | None = None
) -> FileEntry:
    """Copy one file durably and return its entry."""
    hasher = blake3()
    shown = watch(file.path) if watch is not None else None

    def take(data: memoryview) -> None:
        hasher.update(data)
        if shown is not None:
            shown(data)

    with storage_errors("read", Path(file.source)), _open_source(file) as source:
        _same_or_changed(file, os.fstat(source.fileno()))
        with storage_errors("write", target):
            disk.step("copy.before-write", target)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL  # a link too is refused
            with closed_after(os.open(target, flags, FILE_MODE)) as descriptor:
                os.fchmod(descriptor, FILE_MODE)
                cloned = _clone(source, descriptor)
                # Read a clone itself: the source may change from now on.
                origin = FileIO(descriptor, "rb", closefd=False) if cloned else source
                write = _nowhere if cloned else _writing(descriptor, file.size)
                size = _copy_bytes(origin, write, file, take, progress)
                disk.step("copy.before-sync", target)
                os.fsync(descriptor)
        _same_or_changed(file, os.fstat(source.fileno()))
    if shown is not None:
        shown(END)
    return FileEntry(path=file.path, size=size, hash=hasher.hexdigest())


def _clone(source: FileIO, target: int) -> bool:
    """Let both files share their blocks until one of them is written (ioctl_ficlone(2)); return whether that worked.

    XFS, Btrfs and bcachefs can do it within one file system. Any error is ignored here: the copy of the bytes, which
    follows, reports what is wrong.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def _copy_bytes(
    source: FileIO,
    write: Callable[[memoryview], None],
    file: SourceFile,
    take: Callable[[memoryview], None],
    progress: Progress,
) -> int:
    """Copy the bytes in chunks, and return their number. Another thread writes those of a large file."""
    chunk = _DIRECT_CHUNK if file.size >= _DIRECT else min(CHUNK, file.size + 1)
    beside_or_here = (
        beside(write, chunk=chunk) if file.size >= LARGE else nullcontext(Here(write, chunk=chunk))
    )
    size = 0
    with beside_or_here as chunks:
        at_end = False
        while not at_end:
            room = chunks.room()
            data = _fill(room, source, file, take)
            chunks.give(data)
            size += len(data)
            if size > file.size:  # another process writes faster than we read
                raise _changed(Path(file.source))
            progress(len(data))
            at_end = len(data) < len(room)
    return size


def _fill(
    room: memoryview, source: FileIO, file: SourceFile, take: Callable[[memoryview], None]
) -> memoryview:
    """Read until the room is full or the file ends; pieces are taken while they are in a core's cache."""
    filled = 0
    while count := len(data := _read(source, room[filled : filled + CHUNK], file)):
        take(data)
        filled += count
    return room[:filled]


def _nowhere(_: memoryview) -> None:
    """Write nothing: the bytes are there."""


def _writing(descriptor: int, size: int) -> Callable[[memoryview], None]:
    """Return a function that writes the next bytes of a new file."""
    if size >= _DIRECT:
        _go_direct(descriptor)
    written = 0

    def write(data: memoryview) -> None:
        nonlocal written
        if len(data) % _ALIGNED:  # the end of the file
            _leave_direct(descriptor)
        left = data
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except OSError as error:
                # EINVAL: this disk has larger blocks, or part of a block was written.
                if error.errno != errno.EINVAL or not _leave_direct(descriptor):
                    raise
        _start_writeback(descriptor, written, written + len(data))
        written += len(data)

    return write


def _go_direct(descriptor: int) -> None:
    """Let the next writes go past the page cache (open(2), O_DIRECT), where the file system is known to be suited.

    The kernel need not copy the bytes then, nor find memory for them, and a large copy pushes nothing out of the page
    cache that running servers need. In return, the first reader of the file waits for the disk. fsync is still
    needed: the disk may have the bytes in its own cache, and the file's size is not durable.
    """
    facts = (ctypes.c_long * 64)()  # struct statfs, with room to spare; the type is first
    if _LIBC.fstatfs(ctypes.c_int(descriptor), facts) == 0 and facts[0] in _SUITED:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)


def _leave_direct(descriptor: int) -> bool:
    """Let the next writes go through the page cache; return whether they went past it."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if flags & os.O_DIRECT:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return bool(flags & os.O_DIRECT)


def _open_source(file: SourceFile) -> FileIO:
    with _still_there(Path(file.source)):
        return FileIO(file.source, "rb", opener=_no_follow)


def _no_follow(path: str, flags: int) -> int:
    # O_NONBLOCK: if a FIFO took the file's place, we must not wait for its writer.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _read(source: FileIO, room: memoryview, file: SourceFile) -> memoryview:
    """Read a chunk. An error names the source: without this, it would name the target."""
    try:
        return room[: source.readinto(room)]
    except OSError as error:
        raise translate(error, "read", Path(file.source)) from error


def _start_writeback(descriptor: int, before: int, after: int) -> None:
    """Let the kernel start to write while we copy, so that the later fsync is short.

    This is only an optimisation, so its result is ignored: sync_file_range(2) promises nothing.
    """
    first, last = before // _WRITEBACK_STEP, after // _WRITEBACK_STEP
    if last > first:
        _LIBC.sync_file_range(
            ctypes.c_int(descriptor),
            ctypes.c_int64(first * _WRITEBACK_STEP),
            ctypes.c_int64((last - first) * _WRITEBACK_STEP),
            ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
        )


def _same_or_changed(file: SourceFile, facts: os.stat_result) -> None:
    seen = (file.device, file.inode, file.size, file.mtime_ns)
    if (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns) != seen:
        raise _changed(Path(file.source))


def _changed(path: Path) -> SourceChanged:
    return SourceChanged(
        f"{path} changed while it was being copied",
        hint="promote again when the process that writes there (training, an upload) has finished",
    )
