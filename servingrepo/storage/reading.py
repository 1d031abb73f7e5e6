"""Open files: close them after a block, read a small one whole, and refuse what another user put in its place."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.errors import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_AT_ONCE = 1 << 16

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
"""Names of the kinds that are no regular file, by S_IFMT of the mode."""


@contextmanager
def closed_after(descriptor: int) -> Iterator[int]:
    """Give an open descriptor to the block, and close it after the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_whole(path: Path) -> bytes:
    """Return the bytes of a regular file; links are followed.

    Other users who may write in a folder could put a FIFO there: a reader would wait for ever and hold the lock. Or
    they could put a link to a device that has no end (open(2), O_NONBLOCK; fifo(7)).

    Raises:
        StorageFailed: It is no regular file.
        OSError: It cannot be read, or does not exist.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if not path.is_socket():
            raise
        raise _no_file(path, stat.S_IFSOCK) from error
    # Plain calls, because a prune reads 50,000 records: a file object takes as long to make as to read.
    try:
        need_file(descriptor, path)
        parts = []
        while part := os.read(descriptor, _AT_ONCE):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def names_in(folder: Path) -> list[str]:
    """Return the names in a directory, in no order.

    `Path.iterdir` makes a path of each name, which takes most of the time where there are 50,000 versions.
    """
    return os.listdir(folder)  # noqa: PTH208


def folders_in(folder: Path) -> list[str]:
    """Return the names of the directories in a directory, sorted; links to directories are among them."""
    with os.scandir(folder) as entries:
        return sorted(one.name for one in entries if is_folder(one))


def links_in(folder: Path) -> list[str]:
    """Return the names of the links in a directory, in no order."""
    with os.scandir(folder) as entries:
        return [one.name for one in entries if one.is_symlink()]


def is_folder(child: os.DirEntry[str]) -> bool:
    """Tell whether a child is a directory or a link to one. The listing knows that of all but links.

    A link that leads in a circle is an error to DirEntry.is_dir, and only no directory to Path.is_dir.
    """
    return Path(child).is_dir() if child.is_symlink() else child.is_dir(follow_symlinks=False)


def need_file(descriptor: int, path: Path) -> None:
    """Refuse an open descriptor of any other kind than a regular file.

    Raises:
        StorageFailed: It is another kind.
    """
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        raise _no_file(path, kind)


def _no_file(path: Path, kind: int) -> StorageFailed:
    return StorageFailed(
        f"cannot read {path}: it is {KINDS.get(kind, 'something else')}, not a file",
        hint="find out which program or user put it there, and remove it",
    )


def is_git_lfs_pointer(start: bytes) -> bool:
    """Tell by its first bytes whether a file is a Git LFS pointer, whose content was not fetched."""
    return start.startswith(b"version https://git-lfs.github.com/spec/")


def is_left_by_macos(name: str, names: Collection[str]) -> bool:
    """Tell whether macOS left a file to describe its directory or another file in it; `names` are all files there."""
    return name == ".DS_Store" or (name.startswith("._") and name[2:] in names)
