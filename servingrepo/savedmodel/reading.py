"""Read files of an export, in bounded memory, without ever blocking on what is no file."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from servingrepo.storage.beneath import open_beneath, stat_beneath
from servingrepo.storage.reading import closed_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ANYWHERE", "ExportFiles", "Unreadable", "files_of", "read_bounded"]

ANYWHERE = Path("/")
"""The boundary of a version in a repository: those who may write there are trusted with its links."""


class Unreadable(Exception):
    """A file cannot be read; the message says why, `missing` that it is not there at all."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


class ExportFiles(msgspec.Struct, frozen=True):
    """The files of an export, by their paths in it; links are followed as long as they stay inside a boundary.

    The maker of an export may put links to anything into it, and what is read of it is shown.
    """

    path: Path
    boundary: str
    """The directory that nothing is read outside of, absolute and without links."""

    def size(self, name: str) -> int | None:
        """Return the size of a regular file in bytes, or None when there is none."""
        try:
            found = stat_beneath(f"{self.path}/{name}", self.boundary)
        except (OSError, ValueError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def names(self, folder: str = "") -> list[str]:
        """Return what is in a directory of the export, links to nowhere too.

        Raises:
            OSError: It is none that can be read, or lies elsewhere.
        """
        with closed_after(open_beneath(f"{self.path}/{folder}", self.boundary)) as descriptor:
            return os.listdir(descriptor)  # noqa: PTH208 - a descriptor, not a path

    def read(self, name: str, *, limit: int) -> bytes:
        """Return the bytes of a regular file.

        Raises:
            Unreadable: As `open`, or it is longer than `limit` bytes.
        """
        with self.open(name) as (file, size):
            return _bounded(file, size, limit=limit)

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        """Open a regular file for the block, and tell how many bytes it has.

        Raises:
            Unreadable: It is missing, no regular file, lies elsewhere, or the system refuses, while opening or in
                the block.
        """
        with _opened(partial(open_beneath, f"{self.path}/{name}", self.boundary)) as found:
            yield found


def files_of(path: Path, *, boundary: Path | None = None) -> ExportFiles:
    """Return the files of an export, none of which is read outside of a boundary, by default the export itself."""
    return ExportFiles(path, os.path.realpath(boundary if boundary is not None else path))


def read_bounded(path: Path, *, limit: int) -> bytes:
    """Return the bytes of a regular file of the user's own: links are followed.

    Raises:
        Unreadable: It is missing, no regular file, longer than `limit` bytes, or the system refuses.
    """
    # Opening a FIFO without O_NONBLOCK waits for a writer for ever (POSIX open).
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with _opened(partial(os.open, path, flags)) as (file, size):
        return _bounded(file, size, limit=limit)


def _bounded(file: IO[bytes], size: int, *, limit: int) -> bytes:
    if size > limit:
        raise Unreadable(f"it has {size} bytes, more than {limit}")
    return file.read(limit + 1)[:limit]


@contextmanager
def _opened(opening: Callable[[], int]) -> Iterator[tuple[IO[bytes], int]]:
    try:
        descriptor = opening()
    except FileNotFoundError as error:
        raise Unreadable("it is missing", missing=True) from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"it cannot be opened: {_reason(error)}") from error
    try:
        with closed_after(descriptor):
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("it is no regular file")
            with open(descriptor, "rb", closefd=False) as file:
                yield file, found.st_size
    except OSError as error:
        raise Unreadable(f"it cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
