"""Reading a small file whole that others may have put something else in the place of."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from servingrepo.errors import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
"""What is no file, in words, by S_IFMT of its mode."""


def read_whole(path: Path) -> bytes:
    """Return the bytes of a file, links followed, if it is one: what never ends is never begun.

    Others who may write in a folder may put a FIFO there, on which a reader would wait for ever with the lock held,
    or a link to a device that has no end (open(2), O_NONBLOCK; fifo(7)).

    Raises:
        StorageFailed: Something else is in its place.
        OSError: It cannot be read, or is not there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if not path.is_socket():
            raise
        raise _no_file(path, stat.S_IFSOCK) from error
    try:
        need_file(descriptor, path)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def need_file(descriptor: int, path: Path) -> None:
    """Refuse what is open if it is no file.

    Raises:
        StorageFailed: It is something else.
    """
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        raise _no_file(path, kind)


def _no_file(path: Path, kind: int) -> StorageFailed:
    return StorageFailed(
        f"cannot read {path}: it is {KINDS.get(kind, 'something else')}, not a file",
        hint="find out who put it there, and remove it",
    )


def is_git_lfs_pointer(start: bytes) -> bool:
    """Tell by a file's first bytes whether Git LFS keeps its content elsewhere, and it was not fetched."""
    return start.startswith(b"version https://git-lfs.github.com/spec/")


def is_left_by_macos(name: str, names: Collection[str]) -> bool:
    """Tell whether a file, of all with these names in a directory, is what macOS says of another one or of that."""
    return name == ".DS_Store" or (name.startswith("._") and name[2:] in names)
