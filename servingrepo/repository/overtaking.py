"""Commands that changed what is served while a promotion was copying and smoke-testing: their decision stands."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from servingrepo.repository import history, journal

if TYPE_CHECKING:
    from servingrepo.repository.journal import Intent
    from servingrepo.repository.repository import Repository

_DECISIONS = {"serve", "unserve", "rollback"}


def newest_event(repo: Repository, model: str) -> str:
    """Return the id of the newest event of a model; empty if there is none."""
    events = history.read_backwards(repo.layout.history, model=model)
    return next((event.id for event in events), "")


def overtaken_by(repo: Repository, model: str, version: int, *, since: str) -> str:
    """Describe the last decision after an event that this version must not undo; empty if there is none.

    Such a decision is a serve, unserve or rollback, or the promotion of a higher number. Only the history after the
    event is read: a promotion must not take longer with each earlier promotion.
    """
    events = history.read_backwards(repo.layout.history, model=model)
    last = next(
        (
            event
            for event in takewhile(lambda event: event.id != since, events)
            if event.action in _DECISIONS
            or (event.action == "promote" and (event.served_after or 0) > version)
        ),
        None,
    )
    if last is None:
        return ""
    now = last.served_after if last.served_after is not None else "nothing"
    return f"{last.action} by {last.user}@{last.host} at {last.time} (served since: {now})"


def running_promotions(repo: Repository, model: str) -> tuple[str, ...]:
    """Return each version of a model that is being promoted right now, and its owner, in words."""
    return tuple(
        f"{model}@{intent.version} by {intent.owner}"
        for intent in running_commands(repo)
        if intent.command == "promote" and intent.model == model
    )


def running_commands(repo: Repository) -> tuple[Intent, ...]:
    """Return the readable intents of commands that run right now."""
    intents = journal.read_all(repo.layout.journal, leave_out_unreadable=True)
    return tuple(intent for intent, alive in intents if alive)
