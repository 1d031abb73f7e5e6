"""Intents: what a writing command is about to do, so that its death leaves nothing behind.

An intent is a file that its command keeps open and locked (flock) while it runs. Whoever can take that lock
knows that the command is dead: a pid that was used again, another host or a jumping clock cannot mislead.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import StorageFailed
from servingrepo.repository.history import Event
from servingrepo.repository.records import SCHEMA, encode, load
from servingrepo.storage.disk import Disk, storage_errors
from servingrepo.storage.lock import Owner, is_held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a command has begun: a promotion with the number it reserved, or a switch with its event.

    `event` is what history shall say once the switch has happened. `engine` is what may still be running
    for it: of "docker", a container labelled with the txid.
    """

    schema: int = SCHEMA
    txid: str
    command: str
    owner: Owner
    model: str
    version: int | None = None
    event: Event | None = None
    engine: str = ""


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
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def read_all(journal: Path) -> tuple[tuple[Intent, bool], ...]:
    """Return every intent and whether its command is alive, oldest first."""
    found: list[tuple[Intent, bool]] = []
    with storage_errors("read", journal):
        paths = sorted(journal.glob("*.json"))
    for path in paths:
        if path.name.startswith("."):
            continue
        alive = is_held(path)
        intent = load(path, Intent)
        if intent is not None:
            found.append((intent, alive))
    return tuple(found)
