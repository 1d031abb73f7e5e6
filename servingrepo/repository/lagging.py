"""Endpoints of which it is not known that they follow models.config: down during a switch, or left uncertain.

A server carries a reload out even when its client gave up (model_service_impl.cc), so nothing newer may be sent
to it blindly. What is written down here outlives the command: the next one that talks to the endpoint brings
it to models.config first, and only a reload that is answered takes its name off this list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.repository.records import SCHEMA, encode, load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.repository.repository import Repository


class Straggler(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint: since when, and what happened there. `uncertain` says that a reload may still come."""

    endpoint: str
    since: str
    why: str
    uncertain: bool = False


class Stragglers(msgspec.Struct, frozen=True, kw_only=True):
    """The file: all of them."""

    schema: int = SCHEMA
    endpoints: tuple[Straggler, ...] = ()


def read_stragglers(repo: Repository) -> tuple[Straggler, ...]:
    """Return all of them; nothing is locked or changed."""
    found = load(repo.layout.stragglers, Stragglers)
    return found.endpoints if found is not None else ()


def note_stragglers(repo: Repository, ones: Iterable[Straggler]) -> None:
    """Write endpoints down; the caller holds the lock. Who is known already keeps the time it had."""
    known = {one.endpoint: one for one in read_stragglers(repo)}
    for one in ones:
        before = known.get(one.endpoint, one)
        known[one.endpoint] = msgspec.structs.replace(
            one, since=before.since, uncertain=one.uncertain or before.uncertain
        )
    _write(repo, known.values())


def forget_stragglers(repo: Repository, endpoints: Iterable[str]) -> None:
    """Take endpoints off the list, which were proven to follow; the caller holds the lock."""
    gone = set(endpoints)
    _write(repo, (one for one in read_stragglers(repo) if one.endpoint not in gone))


def _write(repo: Repository, ones: Iterable[Straggler]) -> None:
    wanted = Stragglers(endpoints=tuple(sorted(ones, key=lambda one: one.endpoint)))
    if wanted.endpoints == read_stragglers(repo):
        return
    repo.disk.replace_file(repo.layout.stragglers, encode(wanted), step="stragglers")
