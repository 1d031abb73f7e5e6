"""Locks that die with their holder: flock(2) on a file that says who holds it.

The kernel frees a flock when the last descriptor of it is closed, however the process ended, so a lock's
holder is alive by construction: neither a reused pid nor a jumping clock can fool anybody. The text in the
file is only for messages.

There is no other kind of lock to fall back on where the file system refuses flock (NFS without lockd: ENOLCK): a
lock file that outlives its owner needs a person to remove it, and two kinds of locks on one repository exclude
nobody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import Locked, StorageFailed
from servingrepo.masking import mask_command, mask_text
from servingrepo.storage.disk import FILE_MODE, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_SECONDS = 0.05
_LONGEST_COMMAND = 200
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""What was put in a lock's place is not followed (its name would be written over), nor waited for (a FIFO)."""


class Owner(msgspec.Struct, frozen=True):
    """The holder of a lock or an intent."""

    user: str
    host: str
    pid: int
    command: str
    since: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, pid {self.pid} ({self.command}), since {self.since}"


class Lock(msgspec.Struct, frozen=True):
    """A lock that is held, by its open descriptor; `was_left` says that its last holder died holding it."""

    descriptor: int
    path: Path
    was_left: bool = False


def this_process(command: str) -> Owner:
    """Describe this process as an owner."""
    return Owner(
        user=user_name(),
        host=os.uname().nodename,
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
    end = time.monotonic() + wait
    while (descriptor := _try_to_hold(path)) is None:
        if time.monotonic() >= end:
            raise Locked(
                f"{what} is locked by {_holder(path)}; waited {wait:.3g} s",
                hint="wait for that command to end (one that switches live servers may take its --wait and half "
                "a minute more), or give --lock-wait SECONDS; the lock of a process that dies is free at once",
            )
        time.sleep(_POLL_SECONDS)
    try:
        was_left = os.fstat(descriptor).st_size > 0
        _leave_name(descriptor, owner)
        yield Lock(descriptor=descriptor, path=path, was_left=was_left)
    finally:
        _leave_name(descriptor, None)
        os.close(descriptor)


def _try_to_hold(path: Path) -> int | None:
    """Return the open descriptor of the lock that is ours now; None while another process has it."""
    descriptor = _open_lock(path)
    try:
        # A lock file that was removed meanwhile excludes nobody who opens the name after us.
        if try_flock(descriptor, path) and _has_name(descriptor, path):
            held, descriptor = descriptor, -1
            return held
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open_lock(path: Path) -> int:
    """Open the lock file, made readable by all whatever the umask: other users write here too.

    flock(2) needs no write access, so the file of another user (`sudo servingrepo` was here) does not keep out
    others who may write in its folder; then the holder's name is left out.
    """
    with storage_errors("open the lock", path):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, FILE_MODE)
        except PermissionError:
            if not (path.exists() and os.access(path.parent, os.W_OK)):
                raise
            descriptor = os.open(path, os.O_RDONLY | _OPEN)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise StorageFailed(
            f"the lock {path} is no regular file",
            hint="something else was put there: find out what it is, remove it, and try again",
        )
    if stat.S_IMODE(facts.st_mode) != FILE_MODE:
        with suppress(PermissionError):
            os.fchmod(descriptor, FILE_MODE)
    return descriptor


def _has_name(descriptor: int, path: Path) -> bool:
    """Tell whether a path still names the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _leave_name(descriptor: int, owner: Owner | None) -> None:
    """Write who holds the lock into it, or nobody.

    A full disk, or another user's file, must not keep anybody from rolling back: the name is a courtesy. A file
    with a second name is somebody else's too, and stays as it is.
    """
    with suppress(OSError):
        if os.fstat(descriptor).st_nlink == 1:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(owner) if owner is not None else b"", 0)


def _holder(path: Path) -> str:
    """Say who holds a lock. A name that a dead process left, before this holder left its own, is no answer."""
    owner = read_owner(path)
    if owner is None:
        return "a process that left no name"
    if owner.host == os.uname().nodename and not Path(f"/proc/{owner.pid}").exists():
        return (
            f"a process that left no name, or runs in another container: the name there is that of "
            f"{introduce(owner)}, and there is no such pid here"
        )
    return introduce(owner)


def introduce(owner: Owner, *, now: datetime | None = None) -> str:
    """Say who an owner is and for how long: by the wall clock, so a clock that was set is mentioned, not believed."""
    try:
        began = datetime.fromisoformat(owner.since)
        seconds = ((now or datetime.now(UTC)) - began).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a zone
        return str(owner)
    if seconds < -1:
        return f"{owner} (by a clock that is {_duration(-seconds)} ahead of this one)"
    return f"{owner} ({_duration(max(0.0, seconds))} ago)"


def _duration(seconds: float) -> str:
    """Return a duration in the greatest unit of which it has two or more."""
    for unit, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


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
            hint="servingrepo needs a file system with flock(2) for its .servingrepo folder (NFS: with lockd, "
            "not mounted `nolock`); there is nothing else that a dead command would surely let go",
        ) from error
    return True


def is_held(path: Path) -> bool:
    """Tell whether a live process holds the lock on a file; a file that is gone is not held.

    Asks with a shared lock, so that two who ask at the same time do not take each other for the holder.
    """
    with storage_errors("open", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | _OPEN)
        except FileNotFoundError:
            return False
    try:
        return not try_flock(descriptor, path, shared=True)
    finally:
        os.close(descriptor)


def was_left(path: Path) -> bool:
    """Tell whether the last holder of a lock died holding it: its name is still there."""
    with storage_errors("read", path):
        try:
            named = path.stat().st_size > 0
        except FileNotFoundError:
            return False
    return named and not is_held(path)


def read_owner(path: Path) -> Owner | None:
    """Return what a lock file says of its holder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _OPEN)
        try:
            return msgspec.json.decode(os.pread(descriptor, 65_536, 0), type=Owner)
        finally:
            os.close(descriptor)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def command_line() -> str:
    """Return this process's command without secrets, shortened, for people who find it in a lock."""
    words = [Path(sys.argv[0]).name, *mask_command(sys.argv[1:])] if sys.argv else ["python"]
    # It goes into JSON files: bytes that are not UTF-8 (PEP 383) become escapes.
    text = mask_text(" ".join(words)).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 1] + "…"
