"""Intents: what a writing command is about to do, so that recovery can clean up after its death.

An intent is a file that its command keeps open and locked (flock) while it runs. If another process can take that
lock, the command is dead. A reused pid, another host or a jumping clock cannot mislead it.
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
"""The suffix that an unreadable intent gets when it is set aside."""


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a command has begun: a promotion with the number that it reserved, or a switch with its event.

    `event` is the line that history gets once the switch has happened. `engine` may have left a running server: for
    "docker", a container labelled with the txid. `smoked_on` is the server, as HOST:PORT, on which a smoke test
    loads the version. `endpoints` are live servers that may get it. Their credentials are secret and not recorded.
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

    By then the work is done and durable. If the removal fails, the next writer's recovery repeats it. After an error
    the intent stays, unless the block removed it: the lock is free then, and the next writer recovers the intent.
    The lock belongs to the open file, so it survives the rename to the final name.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors("write", path):
        disk.step("intent.before-write", path)
        descriptor = os.open(
            temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE
        )
        try:
            os.fchmod(descriptor, FILE_MODE)  # whatever the umask: `status` of every user reads it
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # free at once, because the file is new
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
        NewerFormat: A newer servingrepo wrote an intent: only that release can recover it.
        RepositoryDamaged: An intent cannot be read, or names paths that are not its own.
    """
    intents: list[tuple[Intent, bool]] = []
    for path in _names(journal):
        try:
            alive = is_held(path) if _is_file(path) else False
            intent = _read(path)
        except RepositoryDamaged:
            if leave_out_unreadable:
                continue
            raise
        if intent is not None:
            intents.append((intent, alive))
    return tuple(intents)


def unreadable(journal: Path) -> tuple[tuple[Path, str], ...]:
    """Return the intents that cannot be read, those set aside earlier included, each with the reason."""
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
    """Rename the unreadable intents of dead commands, and return their new paths: they must not block all writers.

    No file is deleted, so that a person can read it. The caller holds the repository's lock, and recovers what the
    file's name still tells.
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
    """Tell whether a path is a regular file. Opening a FIFO could block, and a link could lead elsewhere."""
    with storage_errors("read", path):
        try:
            return stat.S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            return False


def _read(path: Path) -> Intent | None:
    """Read an intent; None if its command has just ended.

    Recovery removes the paths that an intent names. So an intent may name only its own transaction and a model: a
    forged file must not lead out of the repository.
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
