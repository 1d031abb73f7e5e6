"""Intents: what a writing command is about to do, so that its death leaves nothing behind.

An intent is a file that its command keeps open and locked (flock) while it runs. Whoever can take that lock
knows that the command is dead: a pid that was used again, another host or a jumping clock cannot mislead.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import RepositoryDamaged, StorageFailed
from servingrepo.modelconfig import is_model_name
from servingrepo.repository.history import Event
from servingrepo.repository.records import SCHEMA, damaged, encode, load
from servingrepo.storage.disk import FILE_MODE, Disk, storage_errors
from servingrepo.storage.lock import Owner, is_held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


UNREADABLE = ".unreadable"
"""What is put behind the name of an intent that cannot be read, when it is set aside."""


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a command has begun: a promotion with the number it reserved, or a switch with its event.

    `event` is what history shall say once the switch has happened. `engine` is what may still be running
    for it: of "docker", a container labelled with the txid. `smoked_on` is the server, as HOST:PORT, that a smoke
    test gives the version to, and `endpoints` are live servers that may be told of it. How they are spoken to is a
    secret, and not written down.
    """

    schema: int = SCHEMA
    txid: str
    command: str
    owner: Owner
    model: str
    version: int | None = None
    event: Event | None = None
    engine: str = ""
    smoked_on: str = ""
    endpoints: tuple[str, ...] = ()


@contextmanager
def declare(disk: Disk, path: Path, intent: Intent) -> Iterator[None]:
    """Keep an intent on disk, locked, during the block; remove it when the block ends without an error.

    By then the work is done and durable: where the removal fails, the next writer's recovery repeats it.
    After an error that the block did not clean up itself, the intent stays, and with the lock gone the next
    writer recovers it. The lock belongs to the open file, so it survives the rename to the final name.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors("write", path):
        disk.step("intent.before-write", path)
        descriptor = os.open(
            temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE
        )
        try:
            os.fchmod(descriptor, FILE_MODE)  # whatever the umask: `status` of every user reads it
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # nobody else has the file: it is new
            data = encode(intent)
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)
            disk.step("intent.before-rename", path)
            temporary.rename(path)
            disk.sync_directory(path.parent)
        except BaseException:
            for name in (temporary, path):
                with suppress(OSError):
                    name.unlink()
            os.close(descriptor)
            raise
    try:
        disk.step("intent.done", path)
        yield
        with suppress(StorageFailed):
            disk.step("intent.before-remove", path)
            disk.remove_file(path)
    finally:
        os.close(descriptor)


def read_all(
    journal: Path, *, leave_out_unreadable: bool = False
) -> tuple[tuple[Intent, bool], ...]:
    """Return every intent and whether its command is alive, oldest first.

    Raises:
        NewerFormat: A newer servingrepo wrote one: only that can settle it.
        RepositoryDamaged: One cannot be read, or is about other paths than its own.
    """
    found: list[tuple[Intent, bool]] = []
    for path in _names(journal):
        try:
            alive = is_held(path) if _is_file(path) else False
            intent = _read(path)
        except RepositoryDamaged:
            if leave_out_unreadable:
                continue
            raise
        if intent is not None:
            found.append((intent, alive))
    return tuple(found)


def unreadable(journal: Path) -> tuple[tuple[Path, str], ...]:
    """Return the intents that cannot be read and why; those that were set aside before are among them."""
    found: list[tuple[Path, str]] = []
    for path in _names(journal):
        try:
            _read(path)
        except RepositoryDamaged as error:
            found.append((path, error.message))
    found += [
        (path, f"{path} was set aside by recovery: it could not be read")
        for path in _names(journal, ending=UNREADABLE)
    ]
    return tuple(found)


def set_aside_unreadable(disk: Disk, journal: Path) -> tuple[Path, ...]:
    """Rename the unreadable intents of dead commands, so that one of them does not keep all writers out.

    Nothing is thrown away: the file stays for a look. The caller holds the repository's lock, and settles what
    can be found out from the file's name.

    Returns:
        The new paths.
    """
    done: list[Path] = []
    for path, _ in unreadable(journal):
        if path.name.endswith(UNREADABLE) or (_is_file(path) and is_held(path)):
            continue
        aside = path.with_name(path.name + UNREADABLE)
        disk.step("set-aside.before", path)
        with storage_errors("set aside", path):
            path.rename(aside)  # not synced: if a power loss undoes it, it is done again
        done.append(aside)
    return tuple(done)


def _names(journal: Path, *, ending: str = ".json") -> list[Path]:
    with storage_errors("read", journal):
        return sorted(path for path in journal.glob(f"*{ending}") if path.name[0] != ".")


def _is_file(path: Path) -> bool:
    """Tell whether it is a regular file: what is not could keep us waiting, or lead elsewhere."""
    with storage_errors("read", path):
        try:
            return stat.S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            return False


def _read(path: Path) -> Intent | None:
    """Read an intent; None if its command has just ended.

    What an intent says becomes paths that recovery removes, so it may speak only of its own transaction and of a
    model: a file that somebody planted must not lead out of the repository.
    """
    if not _is_file(path):
        if os.path.lexists(path):
            raise damaged(path, "it is no regular file")
        return None
    intent = load(path, Intent)
    if intent is None:
        return None
    if f"{intent.txid}.json" != path.name:
        raise damaged(path, f"it says that its transaction is {intent.txid!r}")
    about = [intent.model, *([intent.event.model] if intent.event is not None else [])]
    for model in about:
        if model and not is_model_name(model):
            raise damaged(path, f"{model!r} is no model's name")
    return intent
