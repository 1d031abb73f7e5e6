"""Versions that are gone although no command took them: a record, and nothing under the number nor in the trash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.repository import journal
from servingrepo.repository.repository import record_numbers
from servingrepo.repository.trash import find_trashed

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository

__all__ = ["is_lost", "lost_versions"]


def lost_versions(repo: Repository, model: str) -> tuple[int, ...]:
    """Return the numbers of a model's versions that are lost, ascending.

    Raises:
        StorageFailed: The records cannot be listed.
    """
    return _lost(repo, model, record_numbers(repo, model))


def is_lost(repo: Repository, model: str, version: int) -> bool:
    """Tell whether one version is lost."""
    return bool(_lost(repo, model, (version,)))


def _lost(repo: Repository, model: str, versions: tuple[int, ...]) -> tuple[int, ...]:
    """Return which of these are lost.

    A promotion writes the record before the directory appears, and an emptying of the trash removes it after; both
    have an intent in the journal, dead or alive, so a number that one names is not lost. One that appears or
    goes while this looks is not lost either: what seems to be is looked at again after the journal was read.
    """
    missing = [one for one in versions if _is_missing(repo, model, one)]
    if not missing:
        return ()
    busy: set[int | None] = set()
    for intent, _ in journal.read_all(repo.layout.journal, leave_out_unreadable=True):
        if intent.model == model:
            busy |= {intent.version, *(intent.event.versions if intent.event is not None else ())}
    return tuple(one for one in missing if one not in busy and _is_missing(repo, model, one))


def _is_missing(repo: Repository, model: str, version: int) -> bool:
    layout = repo.layout
    return (
        not layout.version(model, version).is_dir()
        and find_trashed(layout, model, version) is None
        and not layout.version(model, version).is_dir()  # a restore may just have brought it back
        and layout.record(model, version).exists()
    )
