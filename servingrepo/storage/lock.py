"""Locks that die with their holder: flock(2) on a file that has the holder's name.

The kernel frees a flock when its last descriptor is closed, however the process ended. So the holder of a lock is
always alive, and a reused pid or a jumping clock does not matter. The text in the file is only for messages.

Where the file system refuses flock (NFS without lockd: ENOLCK), there is no other kind of lock instead. A lock file
that outlives its owner needs a person to remove it, and two kinds of locks on one repository exclude nobody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import Locked, StorageFailed
from servingrepo.masking import mask_command, mask_text
from servingrepo.storage.disk import FILE_MODE, storage_errors
from servingrepo.storage.progress import Notice, unheard
from servingrepo.storage.reading import closed_after
from servingrepo.texts import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_SECONDS = 0.05
_LONGEST_COMMAND = 200
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""If a link took the lock's place, we must not follow it and overwrite its target. Nor may we wait for a FIFO."""


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
    """A lock that we hold. `was_left` says that its last holder died with it."""

    was_left: bool


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
    """Return the user name of this process, or `uid N` if the system knows no name."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@contextmanager
def hold_lock(
    path: Path, owner: Owner, *, wait: float, what: str, notice: Notice = unheard
) -> Iterator[Lock]:
    """Hold the lock during the block; wait for it up to `wait` seconds, and say to `notice` for whom.

    Raises:
        Locked: Another process held it all that time; the message names it.
    """
    end = time.monotonic() + wait
    said = False
    while (descriptor := _try_to_hold(path)) is None:
        if not said and wait:
            notice(f"{what} is locked by {_holder(path)}: waiting up to {wait:.3g} s for it")
        said = True
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
        yield Lock(was_left)
    finally:
        _leave_name(descriptor, None)
        os.close(descriptor)


def _try_to_hold(path: Path) -> int | None:
    """Take the lock and return its open descriptor; None while another process holds it."""
    descriptor = _open_lock(path)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        # If the lock file was removed meanwhile, another process could lock a new file of the same name.
        if try_flock(descriptor, path) and _has_name(descriptor, path):
            stack.pop_all()
            return descriptor
        return None


def _open_lock(path: Path) -> int:
    """Open the lock file, and make it readable for all whatever the umask, because other users write here too.

    flock(2) needs no write access. So a lock file of another user, as `sudo servingrepo` leaves it, does not keep out
    users who may write in its folder; in this case the holder's name is not written.
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
            hint="another program or user put it there: find out what it is, remove it, and try again",
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
    """Write the holder's name into the lock file, or empty the file.

    The name is only for messages: a full disk or another user's file must not stop a rollback. A file with a second
    hard link may be another user's, and stays as it is.
    """
    with suppress(OSError):
        if os.fstat(descriptor).st_nlink == 1:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(owner) if owner is not None else b"", 0)


def _holder(path: Path) -> str:
    """Name the holder of a lock, unless the name in the file is that of an earlier, dead process."""
    owner = read_owner(path)
    if owner is None:
        return "a process that left no name"
    if owner.host == os.uname().nodename and not Path(f"/proc/{owner.pid}").exists():
        return (
            f"a process that left no name, or runs in another container: the lock file names "
            f"{introduce(owner)}, and there is no such pid here"
        )
    return introduce(owner)


def introduce(owner: Owner, *, now: datetime | None = None) -> str:
    """Name an owner and its age. The age is by the wall clock; if that says the future, the text mentions it."""
    try:
        began = datetime.fromisoformat(owner.since)
        seconds = ((now or datetime.now(UTC)) - began).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a zone
        return str(owner)
    if seconds < -1:
        return f"{owner} (by a clock that is {_duration(-seconds)} ahead of this one)"
    return f"{owner} ({_duration(max(0.0, seconds))} ago)"


def _duration(seconds: float) -> str:
    """Return a duration in the greatest unit of which it has at least two."""
    for unit, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def try_flock(descriptor: int, path: Path | str, *, shared: bool = False) -> bool:
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
            "not mounted `nolock`); no other kind of lock is surely freed when its command dies",
        ) from error
    return True


def is_held(path: Path) -> bool:
    """Tell whether a live process holds the lock on a file; False if the file is gone.

    We try a shared lock, so that two processes that ask at the same time do not take each other for the holder.
    """
    with (
        storage_errors("open", path),
        suppress(FileNotFoundError),
        closed_after(os.open(path, os.O_RDONLY | _OPEN)) as descriptor,
    ):
        return not try_flock(descriptor, path, shared=True)
    return False


def was_left(path: Path) -> bool:
    """Tell whether the last holder of a lock died while it held the lock: then its name is still in the file."""
    with storage_errors("read", path), suppress(FileNotFoundError):
        return path.stat().st_size > 0 and not is_held(path)
    return False


def read_owner(path: Path) -> Owner | None:
    """Return the holder that a lock file names; None if it names none."""
    try:
        with closed_after(os.open(path, os.O_RDONLY | _OPEN)) as descriptor:
            return msgspec.json.decode(os.pread(descriptor, 65_536, 0), type=Owner)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def command_line() -> str:
    """Return the command line of this process for messages: without secrets, and shortened."""
    words = [Path(sys.argv[0]).name, *mask_command(sys.argv[1:])] if sys.argv else ["python"]
    text = escaped(mask_text(" ".join(words)))
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 1] + "…"
