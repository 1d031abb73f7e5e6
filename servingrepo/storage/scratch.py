"""Scratch directories and unnamed files for what is needed only while a command runs.

Each process locks its own directories; the next process removes those that dead ones left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from servingrepo.storage.disk import storage_errors
from servingrepo.storage.reading import closed_after

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PREFIX", "Place", "Spool", "scratch", "spool", "sweep"]

Place = tuple[int, int]
"""Where bytes lie in a spool: the offset and the length."""

PREFIX = "servingrepo-scratch-"
"""The names of directories for what came out of a run."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ALONE = fcntl.LOCK_EX
"""The kind of lock by which a process holds its directory, and another one finds out whether it still does."""


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a directory in `parent` for the block. First remove those with its prefix that killed processes left.

    Raises:
        OSError: It cannot be made.
    """
    sweep(parent, prefix)
    place, lock = _make(parent, prefix)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a directory and lock it. If another process removes it before it is locked, make another one."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(place, _DIRECTORY)
        except FileNotFoundError:
            continue
        # Without flock(2), as on some network mounts, no process can sweep.
        with suppress(OSError):
            fcntl.flock(lock, _ALONE)
        if os.fstat(lock).st_nlink:
            return place, lock
        os.close(lock)


def sweep(parent: Path, prefix: str) -> tuple[str, ...]:
    """Remove the directories that killed processes of this user left: those without a lock. Return their names."""
    gone: list[str] = []
    with suppress(OSError):
        for name in os.listdir(parent):  # noqa: PTH208 - glob would take the prefix for a pattern
            left = parent / name
            if not name.startswith(prefix):
                continue
            with suppress(OSError), closed_after(os.open(left, _DIRECTORY)) as descriptor:
                if os.fstat(descriptor).st_uid == os.getuid():
                    fcntl.flock(descriptor, _ALONE | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)  # it refuses links
                    gone.append(name)
    return tuple(gone)


class Spool:
    """Bytes that wait in an unnamed file, because there may be more than memory should hold."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = 0

    def add(self, data: bytes) -> Place:
        """Write bytes, and return where they are.

        Raises:
            NoSpace, StorageFailed: They cannot be written.
        """
        place = (self._end, len(data))
        with storage_errors("write to a temporary file in", Path(str(self._file.name))):
            self._file.write(data)
        self._end += len(data)
        return place

    def read(self, place: Place) -> bytes:
        """Return bytes that were added.

        Raises:
            NoSpace, StorageFailed: They cannot be written or read.
        """
        offset, length = place
        with storage_errors("read a temporary file in", Path(str(self._file.name))):
            self._file.flush()
            return os.pread(self._file.fileno(), length, offset)


@contextmanager
def spool(parent: Path) -> Iterator[Spool]:
    """Make a spool on the file system of a directory, for the block.

    Raises:
        NoSpace, StorageFailed: It cannot be made.
    """
    # A process that is killed before the name is gone leaves a name that recovery knows as a temporary file's.
    with storage_errors("make a temporary file in", parent):
        file = tempfile.TemporaryFile(dir=parent, prefix=".spool-", suffix=".tmp")  # noqa: SIM115
    with file:
        yield Spool(file)
