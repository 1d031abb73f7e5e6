"""Bad marks and holds: set them, and take them away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import NoSuchVersion
from servingrepo.repository.records import BadMark, Hold
from servingrepo.repository.recovery import with_bad_mark
from servingrepo.repository.repository import (
    Repository,
    find_version,
    need_state,
    new_txid,
    save_state,
)
from servingrepo.repository.transaction import new_event, recorded, writing

if TYPE_CHECKING:
    from servingrepo.repository.history import Event


def mark_bad(repo: Repository, model: str, version: int, *, reason: str, dry_run: bool) -> Event:
    """Mark a version bad: no command serves it, rolls back to it or promotes it again. What is served now stays.

    A version in the trash can be marked too: its content is refused from then on. A mark that has a reason keeps it;
    a mark without a reason gets the new one.

    Raises:
        NoSuchVersion: There is no such version.
    """
    with writing(repo, dry_run=dry_run):
        state = need_state(repo, model)
        find_version(repo, model, version)
        event = new_event(
            repo, txid=new_txid(repo), action="mark-bad", model=model, version=version, why=reason
        )
        old = state.bad.get(version)
        if old is not None and (old.reason or not reason):
            return _as_said(event, old)
        if not dry_run:
            with recorded(repo, event):
                save_state(repo, with_bad_mark(repo, state, version, event))
    return event


def clear_bad(repo: Repository, model: str, version: int, *, reason: str, dry_run: bool) -> Event:
    """Take a bad mark away.

    Raises:
        NoSuchVersion: The version is not marked bad.
    """
    with writing(repo, dry_run=dry_run):
        state = need_state(repo, model)
        if version not in state.bad:
            marked = ", ".join(map(str, sorted(state.bad))) or "none"
            raise NoSuchVersion(
                f"{model}@{version} is not marked bad", hint=f"versions marked bad: {marked}"
            )
        event = new_event(
            repo, txid=new_txid(repo), action="clear-bad", model=model, version=version, why=reason
        )
        if not dry_run:
            with recorded(repo, event):
                bad = {number: mark for number, mark in state.bad.items() if number != version}
                save_state(repo, msgspec.structs.replace(state, bad=bad))
    return event


def hold(repo: Repository, model: str, *, reason: str, dry_run: bool) -> Event:
    """Hold a model: `promote` still publishes, but does not change what the model serves.

    A held model gets the new reason, with its author and time. Without a reason the present hold stays as it is: it
    may say why a colleague examines the model.
    """
    with writing(repo, dry_run=dry_run):
        state = need_state(repo, model)
        if state.hold is not None and not reason:
            event = new_event(repo, txid=new_txid(repo), action="hold", model=model)
            return _as_said(event, state.hold)
        event = new_event(repo, txid=new_txid(repo), action="hold", model=model, why=reason)
        held = Hold(reason=reason, user=event.user, host=event.host, time=event.time)
        if not dry_run:
            with recorded(repo, event):
                save_state(repo, msgspec.structs.replace(state, hold=held))
    return event


def _as_said(event: Event, old: BadMark | Hold) -> Event:
    """Return the event with the reason, author and time of the present mark or hold; nothing is recorded."""
    return msgspec.structs.replace(
        event, why=old.reason, user=old.user, host=old.host, time=old.time
    )


def release_hold(repo: Repository, model: str, *, reason: str, dry_run: bool) -> Event:
    """Let `promote` change what the model serves again. A model that is not held stays as it is."""
    with writing(repo, dry_run=dry_run):
        state = need_state(repo, model)
        event = new_event(repo, txid=new_txid(repo), action="release-hold", model=model, why=reason)
        if not dry_run and state.hold is not None:
            with recorded(repo, event):
                save_state(repo, msgspec.structs.replace(state, hold=None))
    return event
