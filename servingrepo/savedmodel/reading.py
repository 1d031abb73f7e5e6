"""Read files of an export, in bounded memory, without ever blocking on what is no file."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Unreadable", "file_size", "open_regular", "read_bounded"]


class Unreadable(Exception):
    """A file cannot be read; the message says why, `missing` that it is not there at all."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


def file_size(path: Path) -> int | None:
    """Return the size of a regular file in bytes, or None when there is none (symlinks are followed)."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def read_bounded(path: Path, *, limit: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        Unreadable: It is missing, no regular file, longer than `limit` bytes, or the system refuses.
    """
    with open_regular(path) as (file, size):
        if size > limit:
            raise Unreadable(f"it has {size} bytes, more than {limit}")
        return file.read(limit + 1)[:limit]


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open a regular file for the block, and tell how many bytes it has.

    Raises:
        Unreadable: It is missing, no regular file, or the system refuses, while opening or in the block.
    """
    try:
        # Opening a FIFO without O_NONBLOCK waits for a writer for ever (POSIX open).
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unreadable("it is missing", missing=True) from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"it cannot be opened: {_reason(error)}") from error
    try:
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("it is no regular file")
            yield file, found.st_size
    except OSError as error:
        raise Unreadable(f"it cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
