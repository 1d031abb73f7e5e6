"""What a dead command may have left on servers: a container, a staged version on a server for smoke tests.

Files are settled in changes.py. What cannot be removed now is said, and its intent stays, so that it is looked for
again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import ConfigInvalid, ServingRepoError
from servingrepo.repository import journal
from servingrepo.repository.snapshot import read_snapshot
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from servingrepo.repository.history import Event
    from servingrepo.repository.journal import Intent
    from servingrepo.repository.repository import Repository

_REAP_SECONDS = 10.0
_EMPTY_SECONDS = 5.0


class OnServers(msgspec.Struct, frozen=True):
    """What a look for leftovers came to: whether a server had the version, what was done, and what is left."""

    had_it: bool = False
    done: str = ""
    left: str = ""


def clear_servers(repo: Repository, intent: Intent, *, reach: bool) -> OnServers:
    """Remove what a dead command left on servers, as far as that can be done.

    Only with `reach` is a server for smoke tests spoken to: nobody who rolls back waits for one.
    """
    if intent.engine == "docker":
        return OnServers(left=_reap_container(intent))
    if not intent.smoked_on or intent.version is None:
        return OnServers()
    if not reach:
        return OnServers(left=f"servingrepo recover looks for it on {intent.smoked_on}")
    return _empty_smoke_server(repo, intent, intent.version)


def _reap_container(intent: Intent) -> str:
    """Remove the container that a dead command left; where that cannot be done, say so: a later writer will."""
    from servingrepo.servers.engines.docker_reaping import reap

    try:
        reap(frozenset({intent.txid}), deadline=Deadline.after(_REAP_SECONDS))
    except ServingRepoError as error:
        return f"its container may be left, and is looked for again the next time: {error.message}"
    return ""


def _empty_smoke_server(repo: Repository, intent: Intent, version: int) -> OnServers:
    """Unload the version from the server on which it was tried; never one that models.config serves."""
    from servingrepo.servers.engines.remote import empty

    name = f"{intent.model}@{version}"
    if is_served(repo, intent.model, version):
        why = f"{name} may be left on {intent.smoked_on}, which may serve it for good by now"
        return OnServers(left=f"{why}: if that server is for smoke tests, restart it")
    try:
        had_it = empty(
            Endpoint.parse(intent.smoked_on), intent.model, version, seconds=_EMPTY_SECONDS
        )
    except ServingRepoError as error:
        why = (
            f"{name} may be left on {intent.smoked_on}, which could not be emptied: {error.message}"
        )
        again = "restart that server; until then it is looked for again by each promotion"
        return OnServers(left=f"{why}; {again}")
    return OnServers(had_it, f"{name} unloaded from {intent.smoked_on}" if had_it else "")


def say_endpoints(intent: Intent, event: Event | None, *, happened: bool) -> str:
    """Say which live servers may have loaded what models.config does not say; empty if it was not sent or stands."""
    endpoints = intent.endpoints or (intent.event.endpoints if intent.event is not None else ())
    stands = happened
    if intent.command == "promote":  # live servers are told once the version exists
        stands = not happened or (event is not None and event.version in event.after)
    if not endpoints or stands:
        return ""
    at = " ".join(f"--endpoint {one}" for one in endpoints)
    return (
        f"{', '.join(endpoints)} may still have loaded what it sent: servingrepo reload {at} brings back what "
        "models.config says"
    )


def is_served(repo: Repository, model: str, version: int) -> bool:
    """Tell whether models.config serves a version, as far as anybody can tell: else it counts as served."""
    with suppress(ConfigInvalid):
        now = read_snapshot(repo, model)
        return version in {*now.served, *now.labels.values()}
    return True


def left_on(repo: Repository, endpoint: Endpoint) -> frozenset[tuple[str, int]]:
    """Return the models and versions that dead smoke tests may have left on a server."""
    return frozenset(
        (intent.model, intent.version)
        for intent, alive in journal.read_all(repo.layout.journal, leave_out_unreadable=True)
        if not alive
        and intent.version is not None
        and intent.smoked_on == str(endpoint)
        and not is_served(repo, intent.model, intent.version)
    )
