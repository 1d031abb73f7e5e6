"""Transactions: the lock, an intent before a change, a line of history after it, and recovery where it failed.

A writing command runs inside `writing`, and each of its changes inside `recorded`. However a change ends, what
is left is settled by the same function: if the change has happened, its history is finished; if not, nothing stays.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

from servingrepo.errors import (
    ServingRepoError,
    StorageFailed,
)
from servingrepo.repository import history, journal
from servingrepo.repository.history import Event
from servingrepo.repository.journal import Intent
from servingrepo.repository.records import (
    SCHEMA,
    StageVerdict,
)
from servingrepo.repository.recovery import recover, say_if_happened, settle
from servingrepo.repository.repository import (
    Repository,
    locked,
    me,
)
from servingrepo.repository.trash import what_happened
from servingrepo.storage.disk import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.repository import Repository


class Facts(TypedDict, total=False):
    """What an event may say beside who did what to which model, and when: the fields of Event."""

    version: int | None
    versions: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    why: str
    run: str
    proof: str
    code: str
    marked_bad: int | None
    labels_before: dict[str, int]
    labels_after: dict[str, int]
    endpoints: tuple[str, ...]
    allowed: tuple[str, ...]
    stages: tuple[StageVerdict, ...]


def new_event(
    repo: Repository, *, txid: str, action: str, model: str, **facts: Unpack[Facts]
) -> Event:
    """Return an event of now, by the user of this process."""
    owner = me()
    return Event(
        schema=SCHEMA,
        id=txid,
        time=repo.now(),
        action=action,
        model=model,
        user=owner.user,
        host=owner.host,
        **facts,
    )


def append_event(repo: Repository, event: Event) -> None:
    """Add a line to the history, durably; the caller holds the lock."""
    history.append(repo.disk, repo.layout.history, event)


@contextmanager
def writing(repo: Repository, *, dry_run: bool = False, publishing: bool = False) -> Iterator[None]:
    """Hold the lock, with what dead commands left settled first; a dry run only reads, so needs neither.

    On a full disk the space set aside is given up for it, but not for `publishing`: it is there for going back. Nor
    does who goes back wait for servers of dead smoke tests.

    Raises:
        Locked: Another process holds the lock.
    """
    if dry_run:
        yield
        return
    with locked(repo):
        if not publishing:
            free_reserved_space(repo)
        recover(repo, reach=publishing)
        yield
        keep_reserved_space(repo)


@dataclass
class Recording:
    """What history will say of the change that is being made; the change may add what came of it."""

    event: Event


@contextmanager
def recorded(repo: Repository, event: Event) -> Iterator[Recording]:
    """Make one change inside the block: intent before it, history after it.

    The caller holds the lock. If the block raises, history is finished where the change has happened
    all the same, and the intent goes.
    """
    recording = Recording(event)
    intent = Intent(txid=event.id, command=event.action, owner=me(), model=event.model, event=event)
    path = repo.layout.intent(event.id)
    with journal.declare(repo.disk, path, intent):
        try:
            yield recording
            event = recording.event
            done = what_happened(repo.layout, event) if event.versions else event
            if done.versions or not event.versions:
                history.append(repo.disk, repo.layout.history, done)
        except BaseException as error:
            # What cannot be settled now (a full disk, say) is left to the next writer.
            with suppress(ServingRepoError):
                say_if_happened(repo, intent, error)
                settle(repo, intent)
            raise


RESERVED_BYTES = 256 << 10
_PLENTY = 8 * RESERVED_BYTES


def free_reserved_space(repo: Repository) -> None:
    """Free the spare file if the disk has less left than a rollback may need; the caller holds the lock."""
    with suppress(StorageFailed):
        if free_bytes(repo.layout.own) < RESERVED_BYTES:
            repo.disk.remove_file(repo.layout.reserved_space)


def keep_reserved_space(repo: Repository) -> None:
    """Make the spare file if it is not there and there is plenty of space; the caller holds the lock.

    It is no promise that a command could fail to keep: where it cannot be made, it is left out. Random bytes,
    so that a file system that compresses cannot save them.
    """
    path = repo.layout.reserved_space
    with suppress(StorageFailed):
        if not path.exists() and free_bytes(repo.layout.own) > _PLENTY:
            repo.disk.replace_file(path, os.urandom(RESERVED_BYTES), step="spare")
