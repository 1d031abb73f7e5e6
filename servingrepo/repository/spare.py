"""Space set aside, so that a full disk does not keep anybody from rolling back.

A rollback writes a few kB: an intent, models.config and its copy, a bad mark, a line of history. When less than
that is free, the spare file is given up for it; the next command that finds space makes it again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from servingrepo.errors import StorageFailed
from servingrepo.storage.disk import free_bytes

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository

SPARE_BYTES = 256 << 10
_PLENTY = 8 * SPARE_BYTES


def give_up_spare(repo: Repository) -> None:
    """Free the spare file if the disk has less left than a rollback may need; the caller holds the lock."""
    with suppress(StorageFailed):
        if free_bytes(repo.layout.own) < SPARE_BYTES:
            repo.disk.remove_file(repo.layout.spare)


def keep_spare(repo: Repository) -> None:
    """Make the spare file if it is not there and there is plenty of space; the caller holds the lock.

    It is no promise that a command could fail to keep: where it cannot be made, it is left out. Random bytes,
    so that a file system that compresses cannot save them.
    """
    path = repo.layout.spare
    with suppress(StorageFailed):
        if not path.exists() and free_bytes(repo.layout.own) > _PLENTY:
            repo.disk.replace_file(path, os.urandom(SPARE_BYTES), step="spare")
