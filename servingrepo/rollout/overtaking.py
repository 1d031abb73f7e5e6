"""Who decided what is served while a promotion was copying and smoke-testing: the later decision stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.repository import history, journal

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository

_DECISIONS = {"serve", "unserve", "rollback"}


def events_so_far(repo: Repository, model: str) -> frozenset[str]:
    """Return the ids of all events of a model until now."""
    return frozenset(event.id for event in history.read(repo.layout.history, model=model))


def overtaken_by(repo: Repository, model: str, version: int, *, since: frozenset[str]) -> str:
    """Say which decision about a model came after these events and is not to be undone by this version.

    Somebody served, unserved or rolled back, or a promotion of a higher number was faster. Empty if nobody did.
    """
    later = [
        event
        for event in history.read(repo.layout.history, model=model)
        if event.id not in since
        and (
            event.action in _DECISIONS
            or (event.action == "promote" and (event.served_after or 0) > version)
        )
    ]
    if not later:
        return ""
    last = later[-1]
    now = last.served_after if last.served_after is not None else "nothing"
    return f"{last.action} by {last.user}@{last.host} at {last.time} (served since: {now})"


def running_promotions(repo: Repository, model: str) -> tuple[str, ...]:
    """Return who is promoting a version of a model right now."""
    return tuple(
        f"{model}@{intent.version} by {intent.owner}"
        for intent, alive in journal.read_all(repo.layout.journal)
        if alive and intent.command == "promote" and intent.model == model
    )
