"""Lagging servers: endpoints that may not follow models.config yet, because they were down or gave no answer.

A server carries out a reload even after its client gave up (model_service_impl.cc), so we must not send a newer
config to it blindly. This list outlives the command. The next command that talks to the endpoint first brings it to
models.config. Only an answered reload takes the endpoint off the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.repository.records import SCHEMA, encode, load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.repository.repository import Repository


class LaggingServer(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, since when it lags, and why. `uncertain` says that it may still carry out an old reload."""

    endpoint: str
    since: str
    why: str
    uncertain: bool = False


class LaggingServers(msgspec.Struct, frozen=True, kw_only=True):
    """The file that has all lagging servers."""

    schema: int = SCHEMA
    endpoints: tuple[LaggingServer, ...] = ()


def read_lagging(repo: Repository) -> tuple[LaggingServer, ...]:
    """Return all lagging servers, without the lock."""
    file = load(repo.layout.stragglers, LaggingServers)
    return file.endpoints if file is not None else ()


def note_lagging(repo: Repository, lagging: Iterable[LaggingServer]) -> None:
    """Add servers to the list; the caller holds the lock. A server that is on it already keeps its time."""
    known = {server.endpoint: server for server in read_lagging(repo)}
    for server in lagging:
        before = known.get(server.endpoint, server)
        known[server.endpoint] = msgspec.structs.replace(
            server, since=before.since, uncertain=server.uncertain or before.uncertain
        )
    _write(repo, known.values())


def forget_lagging(repo: Repository, endpoints: Iterable[str]) -> None:
    """Take endpoints off the list that follow models.config, as was proven; the caller holds the lock."""
    gone = set(endpoints)
    _write(repo, (server for server in read_lagging(repo) if server.endpoint not in gone))


def _write(repo: Repository, lagging: Iterable[LaggingServer]) -> None:
    wanted = LaggingServers(endpoints=tuple(sorted(lagging, key=lambda server: server.endpoint)))
    if wanted.endpoints == read_lagging(repo):
        return
    repo.disk.replace_file(repo.layout.stragglers, encode(wanted), step="stragglers")
