"""The version lock: a shared flock on a version's record keeps it from being pruned while a command reads it.

Readers may lack the right to write, so the lock is on a file that they can read. The kernel frees it when they end.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from servingrepo.errors import Locked, StorageFailed
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.lock import try_flock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from servingrepo.repository.repository import Repository

_POLL_SECONDS = 0.02


@contextmanager
def using(repo: Repository, model: str, version: int) -> Iterator[None]:
    """Keep a version where it is for the block: no prune moves it, and no emptying of the trash deletes it.

    Waits for a prune or a restore that moves it now. Where the file system has no flock, no command can prune, so
    the block runs without a lock. A version without a record needs none, because it is never pruned.

    Raises:
        Locked: Another command was moving it for all of `lock_wait` seconds.
    """
    path = repo.layout.record(model, version)
    end = time.monotonic() + repo.lock_wait
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            yield
            return
        try:
            with suppress(StorageFailed):
                while not try_flock(descriptor, path, shared=True):
                    if time.monotonic() >= end:
                        raise Locked(
                            f"another command is moving {model}@{version} to the trash or out of it",
                            hint="wait for that command to end: servingrepo history shows it",
                        )
                    time.sleep(_POLL_SECONDS)
            if _was_replaced(descriptor, path):
                continue  # a new proof replaced the record: the lock on the old file keeps out no prune
            yield
            return
        finally:
            os.close(descriptor)


def _was_replaced(descriptor: int, path: Path) -> bool:
    """Tell whether the path names another file now."""
    with suppress(OSError):
        return not os.path.samestat(os.fstat(descriptor), path.stat())
    return False


@contextmanager
def alone(repo: Repository, model: str, version: int) -> Iterator[bool]:
    """Lock a version exclusively for the block, if no command reads it; give the block whether that worked."""
    path = repo.layout.record(model, version)
    with storage_errors("open", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield try_flock(descriptor, path)
    finally:
        os.close(descriptor)


def used_versions(repo: Repository, model: str, versions: Iterable[int]) -> frozenset[int]:
    """Return those of a model's versions that a command reads right now."""
    folder = repo.layout.records(model)
    used: set[int] = set()
    with storage_errors("open", folder):
        for version in versions:
            path = f"{folder}/{version}.json"
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if not try_flock(descriptor, path):
                    used.add(version)
            finally:
                os.close(descriptor)
    return frozenset(used)
