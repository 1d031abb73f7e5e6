"""Directories for what is not done yet, locked by their processes: the next one removes what a dead one left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["scratch", "sweep"]

_ALONE = fcntl.LOCK_EX
"""How a process holds its directory, and how another finds out whether it still does."""


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a directory in a place for the block, and remove those with its prefix that killed processes left there.

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
    """Make a directory and lock it; one that another process swept before it was locked is made again."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        # Without flock(2), as on some network mounts, nobody sweeps either.
        with suppress(OSError):
            fcntl.flock(lock, _ALONE)
        if os.fstat(lock).st_nlink:
            return place, lock
        os.close(lock)


def sweep(parent: Path, prefix: str) -> tuple[str, ...]:
    """Remove what killed processes of this user left: directories that nobody has locked. Return their names."""
    gone: list[str] = []
    with suppress(OSError):
        for name in os.listdir(parent):  # noqa: PTH208 - glob would take the prefix for a pattern
            left = parent / name
            if not name.startswith(prefix):
                continue
            with suppress(OSError):
                # rmtree refuses links
                descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    if os.fstat(descriptor).st_uid == os.getuid():
                        fcntl.flock(descriptor, _ALONE | fcntl.LOCK_NB)
                        shutil.rmtree(left, ignore_errors=True)
                        gone.append(name)
                finally:
                    os.close(descriptor)
    return tuple(gone)
