"""Open files safely in a directory that other users may write in: no open file lies outside of it.

A link may lead out of the directory, and another user may swap a directory on the way for a link at any moment. So a
path is opened without following links: by the kernel at once, or component by component. Where links are allowed,
the path is resolved first. The result must lie in the directory, and is opened in the same way.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Literal, TypeVar

from servingrepo.storage.reading import KINDS, closed_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

T = TypeVar("T")

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
"""The kind of a directory entry; a link is a link, whatever it leads to."""

_TO_GO_ON = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags to open a directory that is only on the way: this needs no right to read it."""

_LIBC = ctypes.CDLL(None)
_OPENAT2 = 437
"""The number of openat2(2) on every kind of machine that Python runs on (asm-generic/unistd.h)."""

_RESOLVE_NO_SYMLINKS = 0x04
_AT_FDCWD = -100


def holds(place: str, path: str) -> bool:
    """Tell whether a path is the directory `place` or below it. Both are absolute and without links."""
    return path == place or path.startswith(place.rstrip("/") + "/")


def open_beneath(path: str, place: str) -> int:
    """Open the regular file or directory that a path leads to, if that lies in `place`.

    Args:
        path: The path; its links are followed if they do not leave `place`.
        place: The directory, absolute and without links.

    Raises:
        OSError: It lies elsewhere (ELOOP), is neither file nor directory (EINVAL), does not exist, or the system
            refuses.
    """
    return _without_links(open_plain, path, place)


def stat_beneath(path: str, place: str) -> os.stat_result:
    """Return the stat of the file that a path leads to, if that lies in `place`; see `open_beneath`.

    Raises:
        OSError: It lies elsewhere (ELOOP), does not exist, or the system refuses.
    """
    return _without_links(stat_plain, path, place)


def open_plain(path: str) -> int:
    """Open the regular file or directory at an absolute path without links.

    Other kinds are refused: a FIFO would wait for a writer, and to open a device may start an action.

    Raises:
        OSError: The path has a link (ELOOP), leads to another kind (EINVAL) or to nothing, or the system refuses.
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
    """Return the stat of the file of any kind at an absolute path without links.

    Raises:
        OSError: The path has a link (ELOOP) or leads to nothing, or the system refuses.
    """
    with _above(path) as (at, name):
        facts = os.stat(name, dir_fd=at, follow_symlinks=False)
    _refuse_link(facts.st_mode)
    return facts


def opened_plain(path: str) -> AbstractContextManager[int]:
    """Open a path as `open_plain` does, for a block."""
    return closed_after(open_plain(path))


def entries_of(path: str, *, most: int) -> list[tuple[str, Kind]]:
    """List at most `most` entries of a directory, sorted by name. Its path has no links.

    Raises:
        OSError: `open_plain` cannot open it, or it is no directory.
    """
    with opened_plain(path) as descriptor, os.scandir(descriptor) as scanned:
        found = [(entry.name, _kind(entry)) for entry in islice(scanned, most)]
    return sorted(found)


def _without_links(take: Callable[[str], T], path: str, place: str) -> T:
    """Take a path as it is if it is below a place; resolve its links only if it has some, which is slow and rare.

    `take` follows no link and takes no `..`, so what it finds below a place lies there.
    """
    if holds(place, path):
        try:
            return take(path)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.EINVAL}:
                raise
    return take(_resolved(path, place))


def _resolved(path: str, place: str) -> str:
    real = os.path.realpath(path)
    if not holds(place, real):
        raise OSError(errno.ELOOP, f"it is a link out of {place}, to {real}")
    return real


@contextmanager
def _above(path: str) -> Iterator[tuple[int, str]]:
    """Open the directory above a path, following no link; give its descriptor and the path's last name."""
    names = [name for name in path.split("/") if name] or ["."]
    if not path.startswith("/") or (names != ["."] and not {".", ".."}.isdisjoint(names)):
        raise OSError(errno.EINVAL, "it is no absolute path without . and ..")
    at = _open_at_once("/" + "/".join(names[:-1]))
    try:
        if at < 0:
            at = os.open("/", _TO_GO_ON)
            for name in names[:-1]:
                below = _enter(name, at)
                os.close(at)
                at = below
        yield at, names[-1]
    except OSError as error:
        if error.filename is not None:
            error.filename = path  # the system knows only the component that it was given
        raise
    finally:
        if at >= 0:
            os.close(at)


class _How(ctypes.Structure):
    """What openat2(2) is asked for: struct open_how."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _open_at_once(path: str) -> int:
    """Open a directory in one call that follows no link; return -1 if that fails, for whatever reason.

    Then it is opened component by component, which tells the reason: Linux before 5.6 and some sandboxes have no such
    call. It takes a tenth of the time.
    """
    how = _How(flags=_TO_GO_ON, resolve=_RESOLVE_NO_SYMLINKS)
    found: int = _LIBC.syscall(
        *(_OPENAT2, _AT_FDCWD, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    )
    return found


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
