"""Opening files of a directory that others may write in, and none that lies elsewhere.

A link may lead out of the directory, and a directory on the way may be swapped for a link at any moment. So a path
is opened one component after the other, each below the one before, and a link is never followed. Where links are
allowed, the path is resolved first, held against the directory, and what came of it is opened in the same way.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Literal

from servingrepo.storage.reading import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Kind",
    "entries_of",
    "holds",
    "open_beneath",
    "open_plain",
    "opened_plain",
    "stat_beneath",
    "stat_plain",
]

Kind = Literal["file", "directory", "link", "other"]
"""What an entry of a directory itself is."""

_TO_GO_ON = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory is opened to open something in it: that asks for no right to read it."""


def holds(place: str, path: str) -> bool:
    """Tell whether a path is a place or below it, both absolute and without links."""
    return path == place or path.startswith(place.rstrip("/") + "/")


def open_beneath(path: str, place: str) -> int:
    """Open the regular file or directory that a path leads to, if that lies in a place.

    Args:
        path: Its links are followed, as long as they do not leave the place.
        place: The directory, absolute and without links.

    Raises:
        OSError: It lies elsewhere (ELOOP), is neither (EINVAL), is not there, or the system refuses.
    """
    return open_plain(_resolved(path, place))


def stat_beneath(path: str, place: str) -> os.stat_result:
    """Return what the system says of what a path leads to, if that lies in a place; see `open_beneath`.

    Raises:
        OSError: It lies elsewhere (ELOOP), is not there, or the system refuses.
    """
    return stat_plain(_resolved(path, place))


def open_plain(path: str) -> int:
    """Open the regular file or directory at an absolute path on which no link lies.

    Nothing else is opened: a FIFO would wait for a writer, and a device may act on being opened.

    Raises:
        OSError: A link lies on it (ELOOP), there is something else (EINVAL), or nothing, or the system refuses.
    """
    with _above(path) as (at, name):
        _refuse_others(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=at)
        try:
            _refuse_others(os.fstat(descriptor).st_mode)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


def stat_plain(path: str) -> os.stat_result:
    """Return what the system says of whatever is at an absolute path on which no link lies.

    Raises:
        OSError: A link lies on it (ELOOP), there is nothing, or the system refuses.
    """
    with _above(path) as (at, name):
        facts = os.stat(name, dir_fd=at, follow_symlinks=False)
    _refuse_link(facts.st_mode)
    return facts


@contextmanager
def opened_plain(path: str) -> Iterator[int]:
    """Open a path as `open_plain` does, for the block."""
    descriptor = open_plain(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def entries_of(path: str, *, most: int) -> list[tuple[str, Kind]]:
    """List a directory on whose path no link lies: at most so many of its entries, sorted by name.

    Raises:
        OSError: It cannot be opened as `open_plain` does, or is no directory.
    """
    with opened_plain(path) as descriptor, os.scandir(descriptor) as scanned:
        found = [(entry.name, _kind(entry)) for entry in islice(scanned, most)]
    return sorted(found)


def _resolved(path: str, place: str) -> str:
    real = os.path.realpath(path)
    if not holds(place, real):
        raise OSError(errno.ELOOP, f"it is a link out of {place}, to {real}")
    return real


@contextmanager
def _above(path: str) -> Iterator[tuple[int, str]]:
    """Open the directory that a path's last name is in, a name after the other; give it and that name."""
    names = [name for name in path.split("/") if name] or ["."]
    if not path.startswith("/") or (names != ["."] and not {".", ".."}.isdisjoint(names)):
        raise OSError(errno.EINVAL, "it is no absolute path without . and ..")
    at = os.open("/", _TO_GO_ON)
    try:
        for name in names[:-1]:
            below = _enter(name, at)
            os.close(at)
            at = below
        yield at, names[-1]
    except OSError as error:
        if error.filename is not None:
            error.filename = path  # not the last name of it, which the system was asked for
        raise
    finally:
        os.close(at)


def _enter(name: str, at: int) -> int:
    try:
        return os.open(name, _TO_GO_ON, dir_fd=at)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, f"it lies behind a link, {name}") from None
        raise


def _refuse_link(mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a link")


def _refuse_others(mode: int) -> None:
    _refuse_link(mode)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, f"it is {KINDS.get(stat.S_IFMT(mode), 'no regular file')}")


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
