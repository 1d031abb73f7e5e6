"""Who reads a version right now: a shared flock on its record, which a prune would need for itself.

Readers write nothing, so the lock is on a file that they may only read. The kernel frees it when they end.
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
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.repository.repository import Repository

_POLL_SECONDS = 0.02


@contextmanager
def using(repo: Repository, model: str, version: int) -> Iterator[None]:
    """Keep a version where it is for the block: no prune takes it, no emptying deletes it.

    Waits for a prune or a restore that moves it now. Where the file system has no flock, nobody can prune
    either, so the block runs without. A version without a record needs no lock: it is never pruned.

    Raises:
        Locked: It was being moved for all of `lock_wait` seconds.
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
                            f"{model}@{version} is being moved to the trash or out of it",
                            hint="wait for that command to end: servingrepo history shows it",
                        )
                    time.sleep(_POLL_SECONDS)
            if _was_replaced(descriptor, path):
                continue  # a proof was added to it: nobody looks at the old file's lock any more
            yield
            return
        finally:
            os.close(descriptor)


def _was_replaced(descriptor: int, path: Path) -> bool:
    """Tell whether another file has the name now."""
    with suppress(OSError):
        return not os.path.samestat(os.fstat(descriptor), path.stat())
    return False


@contextmanager
def alone(repo: Repository, model: str, version: int) -> Iterator[bool]:
    """Have a version to ourselves for the block, if nobody reads it; say whether that is so."""
    path = repo.layout.record(model, version)
    with storage_errors("open", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield try_flock(descriptor, path)
    finally:
        os.close(descriptor)


def is_used(repo: Repository, model: str, version: int) -> bool:
    """Tell whether somebody reads a version right now."""
    with alone(repo, model, version) as free:
        return not free
