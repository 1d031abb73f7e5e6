"""The one way in which live servers and models.config change what is served, and go back.

A switch, up or down, is always {old, new}, then the new version AVAILABLE and answering on every endpoint, then
C2 (the file), then {new}. Never {old} to {new} at once: if new failed then, going back would be a no-op that
only looks right (tfserving: a re-aspired version is parked while the failed one is aspired). Each step is taken
on all endpoints at once, and none begins before all have finished the one before. Until C2 any failure puts
the old config back everywhere; after C2 a failure does too, in the same careful order.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import EndpointUnreachable, ServingRepoError, SwitchFailed, UsageError
from servingrepo.fleet import live, steps
from servingrepo.fleet.failures import together, uncertain_endpoints
from servingrepo.fleet.going_back import put_back
from servingrepo.fleet.parallel import each
from servingrepo.fleet.rules import STRICT, Rules
from servingrepo.fleet.stages import observe, pass_check, refuse_stages, refuse_stopped, split
from servingrepo.fleet.steps import EndpointResult
from servingrepo.fleet.verdicts import Control, Counts, control_of, count
from servingrepo.repository.lagging import (
    LaggingServer,
    forget_lagging,
    note_lagging,
    read_lagging,
)
from servingrepo.repository.records import StageVerdict
from servingrepo.repository.served import write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from servingrepo.fleet.plans import Plan
    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.repository import Repository
    from servingrepo.savedmodel import Inspection
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.states import Endpoint

    R = TypeVar("R")

_SETTLE_SECONDS = 20.0
"""What a server that was left behind may take to come to models.config before anything newer is sent."""


@dataclass
class _Fleet:
    """The endpoints of one switch: those that take part, and those that are missing and may be."""

    servers: list[ServingClient]
    rules: Rules
    missing: dict[str, ServingRepoError] = field(default_factory=dict)
    loaded: list[ServingClient] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    """Endpoints that may have been told of the new version."""
    dropped: set[str] = field(default_factory=set)
    """Endpoints that may have dropped the old version before C2: they went down a version in a stage."""
    verdicts: list[StageVerdict] = field(default_factory=list)

    def may_miss(self, error: ServingRepoError) -> bool:
        """Tell whether the switch goes on without the endpoint that gave this error: at least one has to follow."""
        may_be_down = len(self.missing) < self.rules.allow_down and len(self.servers) > 1
        return may_be_down and isinstance(error, EndpointUnreachable)


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a switch on live servers: of each endpoint, and of each stage that was watched."""

    endpoints: tuple[EndpointResult, ...] = ()
    stages: tuple[StageVerdict, ...] = ()


def switch(
    repo: Repository,
    plan: Plan,
    *,
    endpoints: Sequence[Endpoint],
    wait: float,
    rules: Rules = STRICT,
) -> Followed:
    """Carry a plan out on the endpoints and in models.config; the caller holds the lock.

    Without endpoints only the file changes: servers that poll it, or are reloaded later, follow.

    Raises:
        EndpointUnreachable: Endpoints do not answer, more than the rules allow; nothing was changed.
        SwitchFailed: It did not work within `wait` seconds; the message says what and where, and what is
            served now.
    """
    deadline = Deadline.after(wait).stoppable()
    with ExitStack() as stack:
        servers = [stack.enter_context(connect(endpoint)) for endpoint in endpoints]
        fleet = _Fleet(list(servers), rules)
        back = partial(
            put_back, repo, plan, servers, told=fleet.told, dropped=fleet.dropped, poll=rules.poll
        )
        export = _export(repo, plan) if servers and rules.probes else None
        _gather(repo, fleet, plan, deadline=deadline)
        stages = _stages(fleet, plan)
        committed = False
        known: dict[str, steps.Told] = {}
        try:
            if rules.poll and servers:
                known = _load_by_file(repo, fleet, plan, export, deadline=deadline)
                stages = []
            begun = count(fleet.servers, plan.model, rules) if rules.counts_errors else Counts()
            for number, stage in enumerate(stages, start=1):
                control = _control(fleet, stage, plan, begun, alone=len(stages) == 1)
                deadline = _fresh(deadline, rules)
                _take_stage(repo, fleet, stage, plan, export, deadline=deadline)
                last = number == len(stages) > 1
                _watch(fleet, stage, plan, export, control, last=last)
            deadline = _fresh(deadline, rules)
            repo.disk.step("switch.before-c2")
            # From here on the file may have changed, whatever ends this.
            committed = True
            write_config(repo, plan.after)
            repo.disk.step("switch.after-c2")
            done = _drop_old(repo, fleet, plan, known, deadline=deadline)
        except ServingRepoError as error:
            if not servers:
                raise
            failed = back(error=error, committed=committed, uncertain=uncertain_endpoints(error))
            failed.stages = tuple(fleet.verdicts)
            raise failed from error
        except BaseException as interruption:
            # Ctrl-C, SIGTERM: go back before leaving, and say how that went.
            if servers:
                failed = back(
                    error=SwitchFailed("interrupted"),
                    committed=committed,
                    uncertain=set(map(str, endpoints)),
                )
                for line in (failed.message, *failed.problems):
                    interruption.add_note(line)
            raise
        _write_down(repo, fleet, plan)
    done = tuple(_with_verdict(one, fleet.verdicts) for one in done)
    missing = (_left_out(endpoint, error) for endpoint, error in fleet.missing.items())
    return Followed(endpoints=(*done, *missing), stages=tuple(fleet.verdicts))


def connect(endpoint: Endpoint) -> ServingClient:
    """Open a client. grpc is imported only now: a rollback without endpoints has no use for it."""
    from servingrepo.servers.client import ServingClient

    return ServingClient(endpoint)


def _gather(repo: Repository, fleet: _Fleet, plan: Plan, *, deadline: Deadline) -> None:
    """See who answers before anything is changed, and bring stragglers to the config of now first.

    A straggler may still carry out an old reload: one that it answers now comes after that one.

    Raises:
        EndpointUnreachable, ServerTimeout, RequestRefused: More are missing than may be; nothing was changed.
    """
    known = {one.endpoint: one for one in read_lagging(repo)} if fleet.servers else {}

    def look(server: ServingClient) -> None:
        live.check_reachable(server, deadline=deadline)
        lagging = known.get(str(server.endpoint))
        if lagging is not None:
            most = deadline.at_most(_SETTLE_SECONDS)
            _settle(server, plan.before, lagging, most=most, poll=fleet.rules.poll)

    try:
        _together(fleet, look, deadline)
    except EndpointUnreachable as error:
        gone = "no server was changed; one that is gone can be left out: it reads models.config when it starts"
        if fleet.rules.allow_down:
            gone += (
                f"; of those that are named, {fleet.rules.allow_down} may be down, but never all"
            )
        error.hint = f"{error.hint}; {gone}" if error.hint else gone
        raise
    settled = [str(one.endpoint) for one in fleet.servers if str(one.endpoint) in known]
    if settled:
        forget_lagging(repo, settled)
    if fleet.servers:
        repo.disk.step("switch.gathered")


def _settle(
    server: ServingClient, config: ModelConfig, lagging: LaggingServer, *, most: float, poll: bool
) -> None:
    try:
        live.converge(server, config, deadline=Deadline.after(most), poll=poll)
    except ServingRepoError as error:
        raise EndpointUnreachable(
            f"{server.endpoint} was left behind on {lagging.since} ({lagging.why}) and does not come to "
            f"models.config: {error.message}",
            hint="nothing newer was sent to it; restart that server, or leave it out",
        ) from error


def _stages(fleet: _Fleet, plan: Plan) -> list[list[ServingClient]]:
    """Return who gets the new version at a time: everybody at once, if nothing else is asked for."""
    if not fleet.servers or not fleet.rules.staged:
        return [list(fleet.servers)]
    if fleet.rules.poll:
        raise UsageError(
            "servers that poll models.config cannot go in stages: they all read the same file",
            hint="reload by RPC, or leave --first, --batch, --watch-for and --gate out",
        )
    refuse_stages(plan)
    return split(fleet.servers, fleet.rules)


def _fresh(deadline: Deadline, rules: Rules) -> Deadline:
    """Return the deadline of the next step: each stage has the time for itself, watching is not part of it."""
    return Deadline.after(deadline.seconds).stoppable() if rules.staged else deadline


def _control(
    fleet: _Fleet, stage: Sequence[ServingClient], plan: Plan, begun: Counts, *, alone: bool
) -> Control:
    """Return what the stage will be compared with; nothing where errors are not to be judged."""
    if not fleet.rules.counts_errors or not fleet.servers:
        return Control()
    rest = [one for one in fleet.servers if one not in fleet.loaded and one not in stage]
    here = [one for one in stage if one in fleet.servers]
    return control_of(here, rest, plan, fleet.rules, begun, alone=alone)


def _watch(
    fleet: _Fleet,
    stage: Sequence[ServingClient],
    plan: Plan,
    export: Inspection | None,
    control: Control,
    *,
    last: bool,
) -> None:
    """Watch all that have the new version, and note the verdict.

    The last of several stages has nobody left to wait for the verdict. It is watched only to judge its errors.

    Raises:
        SwitchFailed and others of `observe`: The roll-out must not go on.
    """
    fleet.loaded.extend(stage)
    rules = fleet.rules
    if not fleet.servers or not rules.staged or (last and not rules.counts_errors):
        return
    have_it = [server for server in fleet.servers if server in fleet.loaded]
    rest = [server for server in fleet.servers if server not in fleet.loaded]
    watched = have_it if rest else [server for server in have_it if server in stage]
    if control.servers:
        control = Control(tuple(rest))  # one may be missing by now
    names = tuple(str(server.endpoint) for server in watched)
    verdict = StageVerdict(verdict="stop", endpoints=names)
    try:
        verdict = observe(watched, plan, rules, export, control)
        refuse_stopped(verdict, plan, rules)
        if not last:
            pass_check(have_it, rest, plan, rules)
    except ServingRepoError as error:
        if verdict.verdict != "inconclusive":
            why = verdict.why or error.message
            verdict = msgspec.structs.replace(verdict, verdict="stop", why=why)
        raise
    finally:
        fleet.verdicts.append(verdict)


def _with_verdict(one: EndpointResult, verdicts: Sequence[StageVerdict]) -> EndpointResult:
    watched = [verdict for verdict in verdicts if one.endpoint in verdict.endpoints]
    if not watched:
        return one
    return msgspec.structs.replace(one, outcome=f"{one.outcome}; watched: {watched[-1]}")


def _together(
    fleet: _Fleet,
    step: Callable[[ServingClient], R],
    deadline: Deadline,
    *,
    among: Sequence[ServingClient] | None = None,
) -> tuple[R, ...]:
    """Take one step on all endpoints at once; those that may be missing drop out, any other error is raised."""
    answers = each(
        [one for one in fleet.servers if among is None or one in among],
        step,
        deadline=deadline,
        halt=lambda error: not fleet.may_miss(error),
    )
    errors = []
    for answer in answers:
        if answer.error is None:
            continue
        if fleet.may_miss(answer.error):
            fleet.missing[str(answer.of.endpoint)] = answer.error
            fleet.servers.remove(answer.of)
        else:
            errors.append(answer.error)
    if errors:
        raise together([*fleet.missing.values(), *errors])
    return tuple(answer.value for answer in answers if answer.error is None)  # type: ignore[misc]


def _export(repo: Repository, plan: Plan) -> Inspection | None:
    """Look at the version that is to be probed, as it is on disk."""
    from servingrepo.savedmodel import inspect_export
    from servingrepo.savedmodel.reading import ANYWHERE

    if plan.version is None:
        return None
    return inspect_export(repo.layout.version(plan.model, plan.version), boundary=ANYWHERE)


def _take_stage(
    repo: Repository,
    fleet: _Fleet,
    stage: Sequence[ServingClient],
    plan: Plan,
    export: Inspection | None,
    *,
    deadline: Deadline,
) -> None:
    """Have servers load the new version beside the old one, prove it, then move the labels.

    A lower version answers nobody beside a higher one, so a stage that goes down also drops the old version: what
    is watched then is what clients get.
    """
    if plan.version is not None and fleet.servers:
        told: dict[str, steps.Told] = {}

        def tell(server: ServingClient) -> None:
            told[str(server.endpoint)] = steps.tell(server, plan, deadline=deadline)

        def load(server: ServingClient) -> None:
            known = told[str(server.endpoint)]
            steps.wait_loaded(server, plan, fleet.rules, export, told=known, deadline=deadline)

        def label(server: ServingClient) -> None:
            if plan.moves_labels or told[str(server.endpoint)].dead:
                live.send(server, plan.labelled, deadline=deadline)

        fleet.told |= {str(server.endpoint) for server in stage}
        _together(fleet, tell, deadline, among=stage)
        repo.disk.step("switch.stage-told")
        _together(fleet, load, deadline, among=stage)
        repo.disk.step("switch.stage-proven")
        _together(fleet, label, deadline, among=stage)
    repo.disk.step("switch.stage-loaded")
    if fleet.rules.staged and plan.goes_down:
        fleet.dropped |= {str(server.endpoint) for server in stage}
        _together(
            fleet, partial(live.send, config=plan.after, deadline=deadline), deadline, among=stage
        )
        repo.disk.step("switch.stage-dropped")
        final = partial(
            steps.wait_final, plan=plan, probes=len(fleet.rules.probes), deadline=deadline
        )
        _together(fleet, final, deadline, among=stage)


def _load_by_file(
    repo: Repository,
    fleet: _Fleet,
    plan: Plan,
    export: Inspection | None,
    *,
    deadline: Deadline,
) -> dict[str, steps.Told]:
    """Have servers that poll models.config load the new version beside the old one, then move the labels.

    Each file is one with which a server can start, and is replaced only when all have done what it says: a
    server that reads seldom must not miss one. What they said before is returned.
    """
    known: dict[str, steps.Told] = {}

    def remember(server: ServingClient) -> None:
        known[str(server.endpoint)] = steps.look(server, plan, deadline=deadline)

    def load(server: ServingClient) -> None:
        told = known[str(server.endpoint)]
        with live.polling(server, plan.model, told.before, deadline=deadline):
            steps.wait_loaded(server, plan, fleet.rules, export, told=told, deadline=deadline)

    _together(fleet, remember, deadline)
    if plan.version is None:
        return known
    write_config(repo, plan.between)
    repo.disk.step("switch.file-between")
    _together(fleet, load, deadline)
    if plan.moves_labels:
        write_config(repo, plan.labelled)
        repo.disk.step("switch.file-labelled")
        _together(fleet, partial(steps.wait_labelled, plan=plan, deadline=deadline), deadline)
    return known


def _drop_old(
    repo: Repository,
    fleet: _Fleet,
    plan: Plan,
    known: Mapping[str, steps.Told],
    *,
    deadline: Deadline,
) -> tuple[EndpointResult, ...]:
    """Have servers unload what is no longer wanted, and see who answers then.

    `known` has what those said before that poll models.config.
    """
    if not fleet.servers:
        return ()

    final = partial(steps.wait_final, plan=plan, probes=len(fleet.rules.probes), deadline=deadline)

    def wait(server: ServingClient) -> EndpointResult:
        told = known.get(str(server.endpoint))
        if told is None:
            return final(server)
        with live.polling(server, plan.model, told.before, deadline=deadline):
            return final(server)

    if not fleet.rules.poll:
        _together(fleet, partial(live.send, config=plan.after, deadline=deadline), deadline)
    repo.disk.step("switch.drop-told")
    done = _together(fleet, wait, deadline)
    repo.disk.step("switch.dropped")
    return done


def _write_down(repo: Repository, fleet: _Fleet, plan: Plan) -> None:
    """Remember who was left out."""
    left_out = {endpoint: error.message for endpoint, error in fleet.missing.items()}
    if plan.changes and not fleet.rules.poll:
        not_told = f"not told of {plan.model}, whose list of endpoints does not have it"
        left_out = {**dict.fromkeys(fleet.rules.bystanders, not_told), **left_out}
    if left_out:
        now = repo.now()
        ones = (LaggingServer(endpoint=one, since=now, why=why) for one, why in left_out.items())
        note_lagging(repo, ones)


def _left_out(endpoint: str, error: ServingRepoError) -> EndpointResult:
    return EndpointResult(
        endpoint,
        f"left out, and does not follow yet: {error.message}",
        follows=False,
    )
