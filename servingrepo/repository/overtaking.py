"""Who decided what is served while a promotion was copying and smoke-testing: the later decision stands."""

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
    """Say which decision about a model came after an event and is not to be undone by this version.

    Somebody served, unserved or rolled back, or a promotion of a higher number was faster. Empty if nobody did.
    No more of the history is read than what came after the event: a promotion must not take longer with each one
    before it.
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
    """Return who is promoting a version of a model right now."""
    return tuple(
        f"{model}@{intent.version} by {intent.owner}"
        for intent in running_commands(repo)
        if intent.command == "promote" and intent.model == model
    )


def running_commands(repo: Repository) -> tuple[Intent, ...]:
    """Return the intents of commands that run right now, as far as they can be read."""
    found = journal.read_all(repo.layout.journal, leave_out_unreadable=True)
    return tuple(intent for intent, alive in found if alive)
