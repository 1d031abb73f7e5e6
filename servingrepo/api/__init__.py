"""The Python API: one repository, with a method for each verb of the command line.

A method does what the command of the same name does, returns a value and prints nothing; every error is a
`servingrepo.errors.ServingRepoError`. Commands are thin adapters over these methods. References are the
texts that the command line takes: "ranker", "ranker@7", "ranker@previous".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.api.keep import Keeping
from servingrepo.api.release import Releasing
from servingrepo.api.serve import Serving
from servingrepo.repository.repository import (
    DEFAULT_SERVER_ROOT,
    initialize,
    open_repository,
)
from servingrepo.storage.disk import Disk
from servingrepo.texts import as_path

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OpenRepository", "init", "open"]


def init(
    root: str | Path,
    *,
    server_root: str = DEFAULT_SERVER_ROOT,
    disk: Disk | None = None,
    lock_wait: float = 30.0,
) -> tuple[OpenRepository, bool]:
    """Make a directory a repository, with a models.config that a server can start with.

    Args:
        root: The directory; it is created if it is not there. One that is a repository stays as it is.
        server_root: Where TensorFlow Serving sees `<root>/models`: absolute, `/models` in the container.
        disk: For tests: what to write through.
        lock_wait: Seconds to wait for somebody else who makes it one right now.

    Returns:
        The repository, and whether it was made now.

    Raises:
        ConfigInvalid: `server_root` is not an absolute path.
        NoPermission, StorageFailed: It cannot be written.
        Locked: Somebody else held the lock all that time.
    """
    from servingrepo.repository.taking import checked_server_root

    repo, made = initialize(
        as_path(root, "root"),
        server_root=checked_server_root(server_root),
        disk=disk or Disk(),
        lock_wait=lock_wait,
    )
    return OpenRepository(repo), made


def open(root: str | Path, *, disk: Disk | None = None, lock_wait: float = 30.0) -> OpenRepository:
    """Open a repository for reading and writing.

    Raises:
        NoRepository: The root is none.
        NewerFormat: A newer servingrepo wrote it.
    """
    return OpenRepository(open_repository(as_path(root, "root"), disk=disk, lock_wait=lock_wait))


class OpenRepository(Releasing, Serving, Keeping):
    """An opened repository. `root` is its directory, `value` the value that library functions take."""
