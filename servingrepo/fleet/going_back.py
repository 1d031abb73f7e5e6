"""Going back when a switch did not work: the file first, then every server, and what is known of each.

A reload that timed out is carried out by the server later all the same, after its client has given up. So such
a server is watched until it answers again, and only then told to go back: by then the old reload is in its
queue, and ours comes behind it. One that does not answer in time is written down as uncertain.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from servingrepo.deadline import Deadline
from servingrepo.errors import ServerTimeout, ServingRepoError, SwitchFailed
from servingrepo.fleet import live
from servingrepo.fleet.failures import say_both_paths, uncertain_endpoints, unseen_paths
from servingrepo.fleet.parallel import each
from servingrepo.repository.lagging import LaggingServer, note_lagging
from servingrepo.repository.served import write_config

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from servingrepo.fleet.plans import Plan
    from servingrepo.repository.repository import Repository
    from servingrepo.servers.client import ServingClient

RESTORE_SECONDS = 30.0
"""What going back may take when the time for going forward is used up."""

_HUNG_SECONDS = 5.0
"""What it may take on a server whose reload most likely hangs for ever: ours comes behind that one."""
_WORTH_SAYING = 2.0


def put_back(
    repo: Repository,
    plan: Plan,
    servers: Sequence[ServingClient],
    *,
    error: ServingRepoError,
    committed: bool,
    uncertain: Collection[str],
    told: Collection[str] = (),
    dropped: Collection[str] = (),
    poll: bool = False,
) -> SwitchFailed:
    """Bring file and servers back to where they were; return the error that says how that went.

    The file first, which needs no server; then all servers at once, with a time limit of their own. Servers at
    `uncertain` endpoints may still carry out a reload. `told`
    are the endpoints that may have begun to load the new versions, `dropped` those that may have dropped the old
    ones before models.config changed.
    """
    began = time.monotonic()
    trouble: list[str] = []
    lingers: list[str] = []
    try:
        repo.disk.step("switch.going-back")
        if poll and committed:
            _bring_back_by_file(repo, plan, servers)
        if committed or poll:
            write_config(repo, plan.before)
    except ServingRepoError as lost:
        trouble.append(f"models.config could not be put back: {lost.message}")
    hung = set(uncertain) & set(unseen_paths(error))
    answers = each(
        servers,
        lambda server: _put_server_back(
            server,
            plan,
            dropped=committed or str(server.endpoint) in dropped,
            told=poll or str(server.endpoint) in told,
            watched=str(server.endpoint) in uncertain,
            poll=poll,
            seconds=_HUNG_SECONDS if str(server.endpoint) in hung else RESTORE_SECONDS,
        ),
    )
    now: dict[str, str] = {}
    behind: list[LaggingServer] = []
    for answer in answers:
        endpoint = str(answer.of.endpoint)
        again = answer.error
        now[endpoint] = "back where it was" if again is None else again.message
        if again is None:
            if answer.value:
                left = ", ".join(answer.value)
                lingers.append(f"{endpoint}: {left}, and dropped by the server in its own time")
            continue
        doubt = endpoint in {*uncertain, *uncertain_endpoints(again)}
        trouble.append(
            f"{endpoint} could not be put back: {again.message}"
            + ("; a reload may still be carried out there" if doubt else "")
        )
        behind.append(
            LaggingServer(endpoint=endpoint, since=repo.now(), why=again.message, uncertain=doubt)
        )
    if behind:
        try:
            note_lagging(repo, behind)
        except ServingRepoError as lost:
            trouble.append(f"that could not be written down: {lost.message}")
    say_both_paths(repo, error)
    failed = _told(plan, error, trouble, now, behind)
    failed.problems = (*failed.problems, *lingers)
    took = time.monotonic() - began
    if took >= _WORTH_SAYING:
        most = RESTORE_SECONDS * (2 if poll else 1)
        late = (
            f"putting back took {took:.0f} s, which --wait does not count; it may take {most:.0f} s"
        )
        failed.problems = (*failed.problems, late)
    return failed


def _told(
    plan: Plan,
    error: ServingRepoError,
    trouble: list[str],
    now: dict[str, str],
    behind: Sequence[LaggingServer],
) -> SwitchFailed:
    old = ", ".join(map(str, plan.old_pins)) or "nothing"
    if trouble and unseen_paths(error):
        # It carries out no reload before it sees the path, so none can be advised.
        ends, hint = "servers and models.config may disagree", error.hint
    elif trouble:
        ends = "servers and models.config may disagree"
        named = " ".join(f"--endpoint {one.endpoint}" for one in behind) or "--endpoint …"
        hint = (
            f"servingrepo status {plan.model} {named} shows where they are; "
            f"servingrepo reload {named} makes them follow models.config; without --endpoint, serve "
            "and rollback change models.config alone"
        )
    else:
        ends = f"back where it was: {plan.model} serves {old}"
        hint = error.hint or f"servingrepo status {plan.model} shows what is live"
    return SwitchFailed(
        f"{error.message}; {ends}",
        problems=[*error.problems, *trouble],
        hint=hint,
        log=error.log,
        details={
            "put_back": not trouble,
            "cause": error.slug,
            "endpoints": now,
            "uncertain": [one.endpoint for one in behind if one.uncertain],
        },
    )


def _bring_back_by_file(repo: Repository, plan: Plan, servers: Sequence[ServingClient]) -> None:
    """Have servers that poll models.config load the old versions again, before the file says only these.

    Those that do not get there are told by what comes after: here they only have their time.
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
    told: bool,
    dropped: bool,
    watched: bool,
    poll: bool,
    seconds: float,
) -> tuple[str, ...]:
    """Bring one server back to the config before the switch; say what it has not dropped yet.

    The old versions may have been `dropped`, as after C2: they are loaded beside the new one first, under the
    labels that hold now (a label cannot be sent for a version that is not loaded). A model that was taken out
    comes back only when its versions are END, or the reload is answered by their unload (re-adding at once).
    """
    deadline = Deadline.after(seconds)
    if watched:
        _watch(server, plan.model, deadline=deadline)
    old, new = set(plan.old_pins), set(plan.new_pins) - set(plan.old_pins)
    before = live.remembered(server, plan.model, deadline=deadline)
    if not poll:
        if dropped and plan.version is None:
            live.wait_gone(server, plan.model, old, deadline=deadline)
        elif dropped and old:
            live.send(server, plan.labelled, deadline=deadline)
            live.wait_available(server, plan.model, old, before=before, deadline=deadline)
        live.send(server, plan.before, deadline=deadline)
    left = live.wait_unserved(
        server, plan.model, new, settle=before if told else None, deadline=deadline
    )
    live.wait_available(server, plan.model, old, before=before, deadline=deadline)
    if old:
        # A version that answers already is LOADING for as long as a request runs on the old one (tfserving: C.7).
        live.wait_answering(server, plan.model, max(old), deadline=deadline)
    return left


def _watch(server: ServingClient, model: str, *, deadline: Deadline) -> None:
    """Wait until a server that let a request time out answers again."""
    while True:
        try:
            server.status(model, timeout=min(2.0, max(deadline.left, 0.5)))
        except ServerTimeout:
            if deadline.passed:
                raise
        else:
            return
