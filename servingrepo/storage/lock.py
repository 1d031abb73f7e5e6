"""Locks that die with their holder: flock(2) on a file that says who holds it.

The kernel frees a flock when the last descriptor of it is closed, however the process ended, so a lock's
holder is alive by construction: neither a reused pid nor a jumping clock can fool anybody. The text in the
file is only for messages.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import socket
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import Locked, StorageFailed
from servingrepo.storage.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_SECONDS = 0.05


class Owner(msgspec.Struct, frozen=True):
    """Who holds a lock or an intent."""

    user: str
    host: str
    pid: int
    command: str
    since: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, pid {self.pid} ({self.command}), since {self.since}"


class Lock(msgspec.Struct, frozen=True):
    """A lock that is held, by its open descriptor."""

    descriptor: int
    path: Path


def this_process(command: str) -> Owner:
    """Describe this process as an owner."""
    return Owner(
        user=user_name(),
        host=socket.gethostname(),
        pid=os.getpid(),
        command=command,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def user_name() -> str:
    """Return the name of the user this process runs as, or `uid N` where the system knows no name."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@contextmanager
def hold_lock(path: Path, owner: Owner, *, wait: float, what: str) -> Iterator[Lock]:
    """Hold the lock for the duration of the block, waiting for it up to `wait` seconds.

    Raises:
        Locked: Somebody else held it all that time; the message says who.
    """
    with storage_errors("open the lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    held = False
    try:
        end = time.monotonic() + wait
        while not try_flock(descriptor, path):
            if time.monotonic() >= end:
                raise Locked(
                    f"{what} is locked by {read_owner(path) or 'a process that left no name'}; "
                    f"waited {wait:.3g} s",
                    hint="wait for that command to end, or give --lock-wait SECONDS; "
                    "the lock of a process that dies is free at once",
                )
            time.sleep(_POLL_SECONDS)
        held = True
        # A full disk must not keep anybody from rolling back: the name is a courtesy.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(owner), 0)
        yield Lock(descriptor=descriptor, path=path)
    finally:
        if held:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
        os.close(descriptor)


def try_flock(descriptor: int, path: Path, *, shared: bool = False) -> bool:
    """Take the lock if it is free."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise StorageFailed(
            f"cannot lock {path}: {error.strerror}",
            hint="servingrepo needs a file system with flock(2) for its .servingrepo folder",
        ) from error
    return True


def is_held(path: Path) -> bool:
    """Tell whether a live process holds the lock on a file; a file that is gone is not held.

    Asks with a shared lock, so that two who ask at the same time do not take each other for the holder.
    """
    with storage_errors("open", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
    try:
        return not try_flock(descriptor, path, shared=True)
    finally:
        os.close(descriptor)


def read_owner(path: Path) -> Owner | None:
    """Return what a lock file says of its holder."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError):
        return None


def command_line() -> str:
    """Return this process's command in short, for people who find it in a lock."""
    text = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]]) if sys.argv else "python"
    # It goes into JSON files: bytes that are not UTF-8 (PEP 383) become escapes.
    return text.encode("utf-8", "backslashreplace").decode()
