"""The one way in which live servers and models.config change what is served, and go back.

A switch, up or down, is always {old, new}, then the new version AVAILABLE and answering, then C2 (the file),
then {new}. Never {old} to {new} at once: if new failed then, going back would be a no-op that only looks
right (tfserving: a re-aspired version is parked while the failed one is aspired). Until C2 any failure puts
the old config back; after C2 a failure does too, in the same careful order.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ServingRepoError, SwitchFailed
from servingrepo.repository.served import write_config
from servingrepo.rollout import live
from servingrepo.serving.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.repository.repository import Repository
    from servingrepo.rollout.plans import Plan
    from servingrepo.serving.client import ServingClient
    from servingrepo.serving.states import Endpoint

RESTORE_SECONDS = 30.0
"""What going back may take when the time for going forward is used up."""


class EndpointResult(msgspec.Struct, frozen=True):
    """What one endpoint was proven to do after a switch."""

    endpoint: str
    outcome: str


def switch(
    repo: Repository, plan: Plan, *, endpoints: Sequence[Endpoint], wait: float
) -> tuple[EndpointResult, ...]:
    """Carry a plan out on the endpoints and in models.config; the caller holds the lock.

    Without endpoints only the file changes: servers that poll it, or are reloaded later, follow.

    Raises:
        EndpointUnreachable: An endpoint does not answer; nothing was changed.
        SwitchFailed: It did not work within `wait` seconds; the message says what and where, and what is
            served now.
    """
    deadline = Deadline.after(wait)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(endpoint)) for endpoint in endpoints]
        for client in clients:
            live.check_reachable(client, deadline=deadline)
        committed = False
        try:
            for client in clients:
                _load_new(client, plan, deadline=deadline)
            repo.disk.step("switch.before-c2")
            # From here on the file may have changed, whatever ends this.
            committed = True
            write_config(repo, plan.after)
            repo.disk.step("switch.after-c2")
            return tuple(_drop_old(client, plan, deadline=deadline) for client in clients)
        except ServingRepoError as error:
            if not clients:
                raise
            raise _put_back(repo, plan, clients, error, committed=committed) from error
        except BaseException as interruption:
            # Ctrl-C, SIGTERM: go back before leaving, and say how that went.
            if clients:
                why = SwitchFailed("interrupted")
                failed = _put_back(repo, plan, clients, why, committed=committed)
                for line in (failed.message, *failed.problems):
                    interruption.add_note(line)
            raise


def connect(endpoint: Endpoint) -> ServingClient:
    """Open a client. grpc is imported only now: a rollback without endpoints has no use for it."""
    from servingrepo.serving.client import ServingClient

    return ServingClient(endpoint)


def _load_new(client: ServingClient, plan: Plan, *, deadline: Deadline) -> None:
    """Have a server load the new version beside the old one, then move the labels."""
    if plan.target is None:
        return
    before = live.remembered(client, plan.model, deadline=deadline)
    live.send(client, plan.between, deadline=deadline)
    live.wait_available(client, plan.model, plan.new_pins, before=before, deadline=deadline)
    answered = client.metadata(plan.model, plan.target, timeout=deadline.left).version
    if answered != plan.target:
        raise SwitchFailed(
            f"{client.endpoint} answered for {plan.model}@{plan.target} with version {answered}"
        )
    if plan.moves_labels:
        live.send(client, plan.labelled, deadline=deadline)


def _drop_old(client: ServingClient, plan: Plan, *, deadline: Deadline) -> EndpointResult:
    """Have a server unload what is no longer wanted, and see who answers then."""
    live.send(client, plan.after, deadline=deadline)
    gone = set(plan.old_pins) - set(plan.new_pins)
    left = live.wait_unserved(client, plan.model, gone, deadline=deadline)
    if plan.target is not None:
        live.wait_answering(client, plan.model, plan.target, deadline=deadline)
    for label, version in sorted(plan.new_labels.items()):
        live.wait_answering(client, plan.model, version, label=label, deadline=deadline)
    said = f"{plan.model}@{plan.target} answers" if plan.target is not None else "unloaded"
    later = f"; {', '.join(left)}, and dropped by the server in its own time" if left else ""
    return EndpointResult(str(client.endpoint), said + later)


def _put_back(
    repo: Repository,
    plan: Plan,
    clients: Sequence[ServingClient],
    error: ServingRepoError,
    *,
    committed: bool,
) -> SwitchFailed:
    """Bring file and servers back to where they were; return the error that says how that went.

    The file first, which needs no server; then each server, with a time limit of its own.
    """
    trouble: list[str] = []
    if committed:
        try:
            write_config(repo, plan.before)
        except ServingRepoError as again:
            trouble.append(f"models.config could not be put back: {again.message}")
    for client in clients:
        if error.details.get("uncertain") == str(client.endpoint):
            # A reload that timed out is carried out later: another one behind it would be blind.
            trouble.append(
                f"{client.endpoint} was not put back: its last reload may still be carried out"
            )
            continue
        try:
            _put_server_back(client, plan, committed=committed)
        except ServingRepoError as again:
            trouble.append(f"{client.endpoint} could not be put back: {again.message}")
    old = ", ".join(map(str, plan.old_pins)) or "nothing"
    if trouble:
        now = "servers and models.config may disagree"
        hint = (
            f"servingrepo status {plan.model} --endpoint … shows where they are; "
            "servingrepo reload --endpoint … makes them follow models.config; without --endpoint, serve "
            "and rollback change models.config alone"
        )
    else:
        now = f"back where it was: {plan.model} serves {old}"
        hint = error.hint or f"servingrepo status {plan.model} shows what is live"
    return SwitchFailed(
        f"{error.message}; {now}",
        problems=trouble,
        hint=hint,
        log=error.log,
        details={"put_back": not trouble, "cause": error.slug},
    )


def _put_server_back(client: ServingClient, plan: Plan, *, committed: bool) -> None:
    """Bring one server back to the config before the switch.

    After C2 the old versions may be unloaded: they are loaded beside the new one first, under the labels that
    hold now (a label cannot be sent for a version that is not loaded). A model that was taken out comes back
    only when its versions are END, or the reload is answered by their unload (tfserving: re-adding at once).
    """
    deadline = Deadline.after(RESTORE_SECONDS)
    old, new = set(plan.old_pins), set(plan.new_pins) - set(plan.old_pins)
    before = live.remembered(client, plan.model, deadline=deadline)
    if committed and plan.target is None:
        live.wait_gone(client, plan.model, old, deadline=deadline)
    elif committed and old:
        live.send(client, plan.labelled, deadline=deadline)
        live.wait_available(client, plan.model, old, before=before, deadline=deadline)
    live.send(client, plan.before, deadline=deadline)
    live.wait_unserved(client, plan.model, new, deadline=deadline)
    live.wait_available(client, plan.model, old, before=before, deadline=deadline)
