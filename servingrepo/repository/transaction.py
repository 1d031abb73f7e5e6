"""Transactions: the lock, an intent before a change, a line of history after it, and recovery where it failed.

A writing command runs inside `writing`, and each of its changes inside `recorded`. However a change ends, the same
function cleans up: if the change has happened, its history is finished; if not, nothing stays.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypedDict, Unpack

import msgspec

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
    refuse_moved,
    reread,
)
from servingrepo.repository.trash import what_happened
from servingrepo.storage.disk import free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator


class Facts(TypedDict, total=False):
    """The fields of Event that an action may add to its user, model and time."""

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
    """Return an event with the present time and the user of this process."""
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
    """Hold the lock for the block, after the recovery of what dead commands left. A dry run only reads, without both.

    On a full disk the reserved space is freed first, except for `publishing`: it is reserved for rollbacks. Only
    `publishing` clears servers of dead smoke tests, so that no rollback waits for them.

    Raises:
        Locked: Another process holds the lock.
        RepositoryChanged: Where models lie changed since the repository was opened, perhaps by that recovery.
    """
    if dry_run:
        yield
        return
    with locked(repo) as was_left:
        if not publishing:
            free_reserved_space(repo)
        recover(repo, reach=publishing, thorough=was_left)
        refuse_moved(repo, reread(repo))
        yield
        keep_reserved_space(repo)


class Recording(msgspec.Struct):
    """The event of the change that is being made. The block may replace it, to add the result of the change."""

    event: Event


@contextmanager
def recorded(repo: Repository, event: Event) -> Iterator[Recording]:
    """Make one change inside the block: an intent before it, a line of history after it.

    The caller holds the lock. If the block raises, history gets its line if the change has happened all the same,
    and the intent is removed.
    """
    recording = Recording(event)
    intent = Intent(txid=event.id, command=event.action, owner=me(), model=event.model, event=event)
    with declared(repo, intent):
        yield recording
        event = recording.event
        done = what_happened(repo.layout, event) if event.versions else event
        if done.versions or not event.versions:
            history.append(repo.disk, repo.layout.history, done)


@contextmanager
def declared(repo: Repository, intent: Intent) -> Iterator[None]:
    """Keep an intent for the block; the caller holds the lock. If the block raises, recover it at once."""
    with journal.declare(repo.disk, repo.layout.intent(intent.txid), intent):
        try:
            yield
        except BaseException as error:
            # What cannot be recovered now, on a full disk for example, is left to the next writer.
            with suppress(ServingRepoError):
                say_if_happened(repo, intent, error)
                settle(repo, intent)
            raise


RESERVED_BYTES = 256 << 10
_PLENTY = 8 * RESERVED_BYTES


def free_reserved_space(repo: Repository) -> None:
    """Free the reserved space if the disk has less space than a rollback may need; the caller holds the lock."""
    with suppress(StorageFailed):
        if free_bytes(repo.layout.own) < RESERVED_BYTES:
            repo.disk.remove_file(repo.layout.reserved_space)


def keep_reserved_space(repo: Repository) -> None:
    """Make the reserved space if it is missing and the disk has plenty of room; the caller holds the lock.

    If it cannot be made, the command goes on without it. Its bytes are random, because a file system that compresses
    would give constant bytes no space.
    """
    path = repo.layout.reserved_space
    with suppress(StorageFailed):
        if not path.exists() and free_bytes(repo.layout.own) > _PLENTY:
            repo.disk.replace_file(path, os.urandom(RESERVED_BYTES), step="spare")
