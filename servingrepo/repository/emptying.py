"""Deleting for good what is in the trash: the only place where a published version's bytes are removed.

A rename makes a version gone; then its record goes, and history says so. The slow removal of its files runs
without the lock, so that nobody waits for it who has to roll back. Interrupted there, recovery removes the
rest: what has begun to go is never called restorable.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ServingRepoError
from servingrepo.repository import history, journal
from servingrepo.repository.changes import new_event, say_if_happened, settle, writing
from servingrepo.repository.journal import Intent
from servingrepo.repository.repository import (
    Repository,
    me,
    model_names,
    need_state,
    new_txid,
    save_state,
)
from servingrepo.repository.trash import (
    Trashed,
    delete_condemned,
    deleting_place,
    drop_records,
    refuse_strange_trash,
    trashed_versions,
    tree_bytes,
    what_happened,
)
from servingrepo.repository.usage import alone
from servingrepo.storage.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import timedelta

_IN_USE = "in use: somebody verifies or restores it"


class Emptied(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the trash: deleted for good, or kept, and why. `freed` is in bytes on disk."""

    model: str
    version: int
    deleted: bool
    freed: int
    reason: str


def empty_trash(
    repo: Repository,
    models: Iterable[str] = (),
    *,
    older_than: timedelta | None = None,
    message: str = "",
    dry_run: bool = False,
) -> tuple[Emptied, ...]:
    """Delete for good what is in the trash, or what went there longer ago than `older_than`.

    Numbers stay used and bad marks stay. What went there by a clock that is ahead of now is not old.

    Args:
        repo: The repository.
        models: Whose trash; all of them by default.
        older_than: How long ago it must have gone there, by the time in its name.
        message: Why, for history.
        dry_run: Only say what would be deleted.

    Raises:
        NoSuchVersion: There is no such model.
        StorageFailed: Files cannot be removed; the versions are gone all the same, and the next command that
            writes tries again.
    """
    names = tuple(models)
    rows: list[Emptied] = []
    with ExitStack() as stack:
        doomed: list[Path] = []
        with writing(repo, dry_run=dry_run):
            for model in names or model_names(repo):
                need_state(repo, model)
                refuse_strange_trash(repo.layout, model)
                chosen: list[Trashed] = []
                for one in trashed_versions(repo.layout, model):
                    reason = _why_kept(repo, one, older_than=older_than)
                    rows.append(_row(one, reason))
                    if not reason:
                        chosen.append(one)
                if chosen and not dry_run:
                    doomed += stack.enter_context(_condemned(repo, model, chosen, message))
        try:
            for path in doomed:
                delete_condemned(repo.disk, path)
        except ServingRepoError as error:
            gone = ", ".join(f"{one.model}@{one.version}" for one in rows if one.deleted)
            said = (
                f"gone for good all the same: {gone}; the next command that writes removes the rest"
            )
            error.problems = (*error.problems, said)
            raise
    return tuple(rows)


def _why_kept(repo: Repository, one: Trashed, *, older_than: timedelta | None) -> str:
    """Say why something stays in the trash; empty if it may go."""
    if older_than is not None:
        since = one.since
        if since is None:
            return "since when it is in the trash is unknown"
        if repo.clock() - since < older_than:
            return f"in the trash only since {since:%Y-%m-%dT%H:%M:%S}"
    if repo.layout.record(one.model, one.version).exists():
        with alone(repo, one.model, one.version) as free:
            return "" if free else _IN_USE
    return ""


def _row(one: Trashed, reason: str) -> Emptied:
    return Emptied(
        model=one.model,
        version=one.version,
        deleted=not reason,
        freed=tree_bytes(Path(one.path)) if not reason else 0,
        reason=reason,
    )


@contextmanager
def _condemned(
    repo: Repository, model: str, chosen: list[Trashed], message: str
) -> Iterator[list[Path]]:
    """Make versions gone, durably and on record; yield what is left to delete, under a live intent.

    The caller holds the lock for the beginning of the block, not for its end. The number stays burnt even if
    no state file said so before: the record that did is about to go.
    """
    layout, disk = repo.layout, repo.disk
    event = new_event(
        repo,
        txid=new_txid(repo),
        action="empty-trash",
        model=model,
        versions=tuple(one.version for one in chosen),
        why=message,
    )
    intent = Intent(txid=event.id, command=event.action, owner=me(), model=model, event=event)
    with journal.declare(disk, layout.intent(event.id), intent):
        try:
            state = need_state(repo, model)
            highest = max(one.version for one in chosen)
            if state.highest < highest:
                save_state(repo, msgspec.structs.replace(state, highest=highest))
            places = [deleting_place(layout, model, one.version, event.id) for one in chosen]
            for one, place in zip(chosen, places, strict=True):
                with storage_errors("delete", Path(one.path)):
                    disk.publish_directory(Path(one.path), place, step="condemn")
            drop_records(repo.layout, repo.disk, model, event.versions)
            history.append(disk, layout.history, what_happened(layout, event))
        except BaseException as error:
            with suppress(ServingRepoError):
                say_if_happened(repo, intent, error)
                settle(repo, intent)
            raise
        yield places
