"""Going back when a switch did not work: models.config first, then every server, and the error that says how it went.

A server carries a reload out even after its client gave up. So a server that let a reload time out is put back only
when it answers again: then the old reload is in its queue, and the new one comes behind it. A server that does not
answer in time is written down as lagging.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from servingrepo.deadline import Deadline
from servingrepo.errors import ServerTimeout, ServingRepoError, SwitchFailed
from servingrepo.fleet import live
from servingrepo.fleet.failures import say_both_paths, uncertain_endpoints, unseen_paths
from servingrepo.fleet.parallel import Answer, each
from servingrepo.repository.config import write_config
from servingrepo.repository.lagging import LaggingServer, note_lagging

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from servingrepo.fleet.plans import Plan
    from servingrepo.repository.repository import Repository
    from servingrepo.servers.client import ServingClient

RESTORE_SECONDS = 30.0
"""How long going back may take; the time for going forward is used up by then."""

_HUNG_SECONDS = 5.0
"""How long it may take on a server that most likely hangs in a reload for ever: the new one waits behind that."""

_WORTH_SAYING_SECONDS = 2.0


def put_back(
    repo: Repository,
    plan: Plan,
    servers: Sequence[ServingClient],
    *,
    error: ServingRepoError,
    committed: bool,
    uncertain: Collection[str],
    asked: Collection[str] = (),
    dropped: Collection[str] = (),
    poll: bool = False,
) -> SwitchFailed:
    """Put models.config and the servers back; return the error that says how that went.

    The file comes first: it needs no server. Then all servers at once, with a time limit of their own.

    Args:
        repo: The repository.
        plan: What was to be changed.
        servers: All servers of the switch.
        error: Why it did not work.
        committed: Whether models.config may have changed.
        uncertain: Endpoints that may still carry out a reload.
        asked: Endpoints that may have begun to load the new versions.
        dropped: Endpoints that may have dropped the old versions before models.config changed.
        poll: Whether the servers follow models.config by reading it.
    """
    began = time.monotonic()
    trouble = _put_file_back(repo, plan, servers, committed=committed, poll=poll)
    hung = set(uncertain) & set(unseen_paths(error))

    def put_server_back(server: ServingClient) -> tuple[str, ...]:
        endpoint = str(server.endpoint)
        return _put_server_back(
            server,
            plan,
            dropped=committed or endpoint in dropped,
            asked=poll or endpoint in asked,
            uncertain=endpoint in uncertain,
            poll=poll,
            seconds=_HUNG_SECONDS if endpoint in hung else RESTORE_SECONDS,
        )

    answers = each(servers, put_server_back)
    lagging = _lagging(repo, answers, uncertain)
    trouble += [
        f"{one.endpoint} could not be put back: {one.why}"
        + ("; it may still carry out a reload" if one.uncertain else "")
        for one in lagging
    ]
    if lagging:
        try:
            note_lagging(repo, lagging)
        except ServingRepoError as lost:
            trouble.append(f"lagging servers could not be written down: {lost.message}")
    say_both_paths(repo, error)
    failed = _failure(plan, error, trouble, lagging, [str(one.endpoint) for one in servers])
    failed.problems = (
        *failed.problems,
        *(
            f"{answer.of.endpoint}: {', '.join(answer.value)}, and dropped by the server in its own time"
            for answer in answers
            if answer.value
        ),
    )
    took = time.monotonic() - began
    if took >= _WORTH_SAYING_SECONDS:
        most = RESTORE_SECONDS * (2 if poll else 1)
        late = (
            f"putting back took {took:.0f} s, which --wait does not count; it may take {most:.0f} s"
        )
        failed.problems = (*failed.problems, late)
    return failed


def _put_file_back(
    repo: Repository, plan: Plan, servers: Sequence[ServingClient], *, committed: bool, poll: bool
) -> list[str]:
    """Put models.config back if it may have changed; return what went wrong."""
    try:
        repo.disk.step("switch.going-back")
        if poll and committed:
            _bring_back_by_file(repo, plan, servers)
        if committed or poll:
            write_config(repo, plan.before)
    except ServingRepoError as lost:
        return [f"models.config could not be put back: {lost.message}"]
    return []


def _lagging(
    repo: Repository,
    answers: Sequence[Answer[ServingClient, tuple[str, ...]]],
    uncertain: Collection[str],
) -> list[LaggingServer]:
    """Return the servers that could not be put back."""
    return [
        LaggingServer(
            endpoint=(endpoint := str(answer.of.endpoint)),
            since=repo.now(),
            why=answer.error.message,
            uncertain=endpoint in {*uncertain, *uncertain_endpoints(answer.error)},
        )
        for answer in answers
        if answer.error is not None
    ]


def _failure(
    plan: Plan,
    error: ServingRepoError,
    trouble: Sequence[str],
    lagging: Sequence[LaggingServer],
    endpoints: Sequence[str],
) -> SwitchFailed:
    """Return the error that says why the switch failed, where servers and file are now, and what to do."""
    old = ", ".join(map(str, plan.old_pins)) or "nothing"
    ends = "servers and models.config may disagree"
    hint = error.hint
    if not trouble:
        ends = f"back where it was: {plan.model} serves {old}"
        hint = hint or f"servingrepo status {plan.model} shows what is live"
    elif not unseen_paths(error):  # a server that does not see our files carries out no reload
        named = " ".join(f"--endpoint {one.endpoint}" for one in lagging) or "--endpoint …"
        hint = (
            f"servingrepo status {plan.model} {named} shows where they are; "
            f"servingrepo reload {named} makes them follow models.config; without --endpoint, serve "
            "and rollback change models.config alone"
        )
    why = {one.endpoint: one.why for one in lagging}
    return SwitchFailed(
        f"{error.message}; {ends}",
        problems=[*error.problems, *trouble],
        hint=hint,
        log=error.log,
        details={
            "put_back": not trouble,
            "cause": error.slug,
            "endpoints": {name: why.get(name, "back where it was") for name in endpoints},
            "uncertain": [one.endpoint for one in lagging if one.uncertain],
        },
    )


def _bring_back_by_file(repo: Repository, plan: Plan, servers: Sequence[ServingClient]) -> None:
    """Have servers that poll models.config load the old versions again, before the file says only these.

    A server that does not get there in time is no error here: what comes after waits for it again, and says so.
    """
    deadline = Deadline.after(RESTORE_SECONDS)
    old = set(plan.old_pins)
    if plan.version is None:
        each(servers, lambda one: live.wait_gone(one, plan.model, old, deadline=deadline))
    elif old:
        write_config(repo, plan.labelled)
        each(servers, lambda one: live.wait_available(one, plan.model, old, deadline=deadline))


def _put_server_back(
    server: ServingClient,
    plan: Plan,
    *,
    asked: bool,
    dropped: bool,
    uncertain: bool,
    poll: bool,
    seconds: float,
) -> tuple[str, ...]:
    """Bring one server back to the config before the switch; return the versions that it has not dropped yet.

    The server may have `dropped` the old versions, as after C2: then it loads them beside the new one first, under
    the labels that hold now (a label cannot be sent for a version that is not loaded). A model that was taken out
    comes back only when its versions are END: else their unload would answer the reload.
    """
    deadline = Deadline.after(seconds)
    if uncertain:
        _wait_until_it_answers(server, plan.model, deadline=deadline)
    old, new = set(plan.old_pins), set(plan.new_pins) - set(plan.old_pins)
    before = live.states_of(server, plan.model, deadline=deadline)
    if not poll:
        if dropped and plan.version is None:
            live.wait_gone(server, plan.model, old, deadline=deadline)
        elif dropped and old:
            live.send(server, plan.labelled, deadline=deadline)
            live.wait_available(server, plan.model, old, before=before, deadline=deadline)
        live.send(server, plan.before, deadline=deadline)
    left = live.wait_unserved(
        server, plan.model, new, before=before if asked else None, deadline=deadline
    )
    live.wait_available(server, plan.model, old, before=before, deadline=deadline)
    if old:
        # A version that answers already stays LOADING while a request runs on the old one (tfserving: C.7).
        live.wait_answering(server, plan.model, max(old), deadline=deadline)
    return left


def _wait_until_it_answers(server: ServingClient, model: str, *, deadline: Deadline) -> None:
    """Wait until a server that let a reload time out answers again."""
    while True:
        try:
            server.status(model, timeout=min(2.0, max(deadline.left, 0.5)))
        except ServerTimeout:
            if deadline.passed:
                raise
        else:
            return
