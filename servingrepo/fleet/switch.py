"""The switch: the only way in which live servers and models.config change what is served.

A switch, up or down, has three steps: servers load the new version beside the old one; models.config is replaced
(C2); servers drop the old version. No server goes from old to new at once: if the new version failed then, the server
would ignore a config that brings the old one back (tfserving: a re-aspired version is parked while the failed one is
aspired). Each step is taken on all servers at once, and begins when all servers have finished the step before.
A failure, before C2 or after it, puts the old config back everywhere (going_back.py).
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import EndpointUnreachable, ServingRepoError, SwitchFailed, UsageError
from servingrepo.fleet import live, steps
from servingrepo.fleet.failures import together, uncertain_endpoints
from servingrepo.fleet.going_back import put_back
from servingrepo.fleet.parallel import Answer, each
from servingrepo.fleet.stages import (
    pass_stage_check,
    refuse_stages,
    refuse_stopped,
    split,
    watch_stage,
)
from servingrepo.fleet.steps import EndpointResult
from servingrepo.fleet.verdicts import Control, Counts, control_of, count
from servingrepo.repository.config import write_config
from servingrepo.repository.lagging import (
    LaggingServer,
    forget_lagging,
    note_lagging,
    read_lagging,
)
from servingrepo.repository.records import StageVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import TypeVar

    from servingrepo.fleet.options import LiveOptions
    from servingrepo.fleet.plans import Plan
    from servingrepo.fleet.rules import Rules
    from servingrepo.repository.repository import Repository
    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.states import Endpoint

    R = TypeVar("R")

_CATCH_UP_SECONDS = 20.0
"""How long a lagging server may take to come to models.config, before it gets a newer config."""


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a switch: of each endpoint, and the verdict of each stage that was watched."""

    endpoints: tuple[EndpointResult, ...] = ()
    stages: tuple[StageVerdict, ...] = ()


def switch(repo: Repository, plan: Plan, options: LiveOptions) -> Followed:
    """Carry a plan out on the endpoints and in models.config; the caller holds the lock.

    Without endpoints only the file changes: servers that poll it, or are reloaded later, follow.

    Raises:
        EndpointUnreachable: More endpoints do not answer than the rules allow; nothing was changed.
        SwitchFailed: It did not work within the seconds of `wait`; the message says what failed, where, and what is
            served now.
    """
    rules = options.fleet_rules
    with ExitStack() as stack:
        servers = [stack.enter_context(connect(endpoint)) for endpoint in options.fleet]
        export = _export(repo, plan) if servers and rules.probes else None
        deadline = Deadline.after(options.wait).stoppable()
        fleet = _Fleet(repo, plan, rules, list(servers), deadline, export)
        fleet.check_servers()
        stages = fleet.stages()
        committed = False
        try:
            if rules.poll and servers:
                fleet.load_by_file()
            else:
                fleet.load_in_stages(stages)
            fleet.renew_deadline()
            repo.disk.step("switch.before-c2")
            committed = True  # from here on the file may have changed, whatever ends this
            write_config(repo, plan.after)
            repo.disk.step("switch.after-c2")
            results = fleet.drop_old()
        except ServingRepoError as error:
            if not servers:
                raise
            uncertain = uncertain_endpoints(error)
            failed = fleet.go_back(servers, error, committed=committed, uncertain=uncertain)
            raise failed from error
        except BaseException as interruption:
            # Ctrl-C, SIGTERM: go back before leaving, and say how that went.
            if servers:
                stopped = SwitchFailed("interrupted")
                uncertain = set(map(str, options.fleet))
                failed = fleet.go_back(servers, stopped, committed=committed, uncertain=uncertain)
                for line in (failed.message, *failed.problems):
                    interruption.add_note(line)
            raise
        fleet.note_lagging()
    return Followed(endpoints=fleet.with_verdicts(results), stages=tuple(fleet.verdicts))


def connect(endpoint: Endpoint) -> ServingClient:
    """Open a client of a server. It imports grpc only now: a rollback without endpoints does without."""
    from servingrepo.servers.client import ServingClient

    return ServingClient(endpoint)


def _export(repo: Repository, plan: Plan) -> Inspection | None:
    """Inspect the version that is to be probed, as it is on disk."""
    from servingrepo.savedmodel.inspection import inspect_export
    from servingrepo.savedmodel.reading import ANYWHERE

    if plan.version is None:
        return None
    return inspect_export(repo.layout.version(plan.model, plan.version), boundary=ANYWHERE)


@dataclass
class _Fleet:
    """The live servers of one switch, and how far each of them is. The methods are the steps, in their order."""

    repo: Repository
    plan: Plan
    rules: Rules
    servers: list[ServingClient]
    """The servers that take part. A server that is missing, and may be, goes from here to `missing`."""
    deadline: Deadline
    export: Inspection | None
    missing: dict[str, ServingRepoError] = field(default_factory=dict)
    before: dict[str, steps.Before] = field(default_factory=dict)
    """By endpoint: the states of the server before it was asked to load anything."""
    asked: set[str] = field(default_factory=set)
    """Endpoints that may have been asked to load the new version."""
    dropped: set[str] = field(default_factory=set)
    """Endpoints that may have dropped the old version before C2: they went down a version in a stage."""
    have_new: list[ServingClient] = field(default_factory=list)
    """Servers of the stages that are done."""
    verdicts: list[StageVerdict] = field(default_factory=list)

    def check_servers(self) -> None:
        """See that servers answer before anything is changed, and bring lagging servers to the config of now.

        A lagging server may still carry out an old reload. A reload that it answers now comes after that one.

        Raises:
            EndpointUnreachable, ServerTimeout, RequestRefused: More servers are missing than may be; nothing was
                changed.
        """
        lagging = {one.endpoint: one for one in read_lagging(self.repo)} if self.servers else {}
        reach = partial(live.check_reachable, deadline=self.deadline)
        try:
            self._take(self._each(self.servers, reach))
            behind = [one for one in self.servers if _name(one) in lagging]
            catch_up = partial(self._catch_up, lagging=lagging)
            self._take(self._each(behind, catch_up))
        except EndpointUnreachable as error:
            hint = "no server was changed; leave out a server that is down: it reads models.config when it starts"
            if self.rules.allow_down:
                hint += f"; {self.rules.allow_down} of the endpoints may be down, but never all"
            error.hint = f"{error.hint}; {hint}" if error.hint else hint
            raise
        caught_up = {_name(server) for server in self.servers} & lagging.keys()
        if caught_up:
            forget_lagging(self.repo, caught_up)
        if self.servers:
            self.repo.disk.step("switch.gathered")

    def _catch_up(self, server: ServingClient, lagging: Mapping[str, LaggingServer]) -> None:
        known = lagging[_name(server)]
        deadline = Deadline.after(self.deadline.at_most(_CATCH_UP_SECONDS))
        try:
            live.converge(server, self.plan.before, deadline=deadline, poll=self.rules.poll)
        except ServingRepoError as error:
            raise EndpointUnreachable(
                f"{server.endpoint} lags since {known.since} ({known.why}) and does not come to "
                f"models.config: {error.message}",
                hint="it got no newer config; restart that server, or leave it out",
            ) from error

    def stages(self) -> list[list[ServingClient]]:
        """Return which servers get the new version at a time: all at once, if nothing else is asked for.

        Raises:
            UsageError: The change cannot go in stages.
        """
        if not self.servers or not self.rules.staged:
            return [list(self.servers)]
        if self.rules.poll:
            raise UsageError(
                "servers that poll models.config cannot go in stages: they all read the same file",
                hint="reload by RPC, or leave --first, --batch, --watch-for and --gate out",
            )
        refuse_stages(self.plan)
        return split(self.servers, self.rules)

    def load_in_stages(self, stages: Sequence[Sequence[ServingClient]]) -> None:
        """Have the servers of each stage load the new version, and watch them before the next stage."""
        counted = self.rules.counts_errors
        begun = count(self.servers, self.plan.model, self.rules) if counted else Counts()
        for number, stage in enumerate(stages, start=1):
            control = self._control(stage, begun, alone=len(stages) == 1)
            self.renew_deadline()
            self._load(stage)
            self._watch(stage, control, last=number == len(stages) > 1)

    def renew_deadline(self) -> None:
        """Give each stage the whole time for itself: watching a stage is no part of it."""
        if self.rules.staged:
            self.deadline = Deadline.after(self.deadline.seconds).stoppable()

    def _control(self, stage: Sequence[ServingClient], begun: Counts, *, alone: bool) -> Control:
        """Return what the stage will be compared with; nothing where errors are not to be judged."""
        if not self.rules.counts_errors or not self.servers:
            return Control()
        rest = [one for one in self.servers if one not in self.have_new and one not in stage]
        here = [one for one in stage if one in self.servers]
        return control_of(here, rest, self.plan, self.rules, begun, alone=alone)

    def _load(self, stage: Sequence[ServingClient]) -> None:
        """Have servers load the new version beside the old one, prove it, then move the labels.

        Beside a higher version a lower one answers no unlabelled client. So a stage that goes down drops the old
        version too: then the watched version is the one that clients get.
        """
        step, endpoints = self.repo.disk.step, {_name(server) for server in stage}
        if self.plan.version is not None and self.servers:
            self.asked |= endpoints
            begin = partial(steps.begin_load, plan=self.plan, deadline=self.deadline)
            begun = self._take(self._each(self._those(stage), begin))
            self.before |= dict(zip(map(_name, self._those(stage)), begun, strict=True))
            step("switch.stage-told")
            self._take(self._each(self._those(stage), self._wait_loaded))
            step("switch.stage-proven")
            self._take(self._each(self._those(stage), self._move_labels))
        step("switch.stage-loaded")
        if self.rules.staged and self.plan.goes_down:
            self.dropped |= endpoints
            self._take(self._each(self._those(stage), self._send_final))
            step("switch.stage-dropped")
            self._take(self._each(self._those(stage), self._wait_final))

    def _wait_loaded(self, server: ServingClient) -> None:
        before = self.before[_name(server)]
        steps.wait_loaded(
            server, self.plan, self.rules, self.export, before=before, deadline=self.deadline
        )

    def _move_labels(self, server: ServingClient) -> None:
        if self.plan.moves_labels or self.before[_name(server)].dead_labels:
            live.send(server, self.plan.labelled, deadline=self.deadline)

    def _send_final(self, server: ServingClient) -> None:
        live.send(server, self.plan.after, deadline=self.deadline)

    def _wait_final(self, server: ServingClient) -> EndpointResult:
        probes = len(self.rules.probes)
        with self._polling(server) if self.rules.poll else nullcontext():
            return steps.wait_final(server, self.plan, probes=probes, deadline=self.deadline)

    def _watch(self, stage: Sequence[ServingClient], control: Control, *, last: bool) -> None:
        """Watch all servers that have the new version, and note the verdict.

        No further stage waits for the verdict of the last one. It is watched only to judge its errors.

        Raises:
            SwitchFailed and others of `watch_stage`: The roll-out must not go on.
        """
        self.have_new.extend(stage)
        rules = self.rules
        if not self.servers or not rules.staged or (last and not rules.counts_errors):
            return
        have_new = [server for server in self.servers if server in self.have_new]
        rest = [server for server in self.servers if server not in self.have_new]
        watched = have_new if rest else [server for server in have_new if server in stage]
        if control.servers:
            control = Control(tuple(rest))  # a server may be missing by now
        names = tuple(_name(server) for server in watched)
        verdict = StageVerdict(verdict="stop", endpoints=names)
        try:
            verdict = watch_stage(watched, self.plan, rules, self.export, control)
            refuse_stopped(verdict, self.plan, rules)
            if not last:
                pass_stage_check(have_new, rest, self.plan, rules)
        except ServingRepoError as error:
            if verdict.verdict != "inconclusive":
                why = verdict.why or error.message
                verdict = msgspec.structs.replace(verdict, verdict="stop", why=why)
            raise
        finally:
            self.verdicts.append(verdict)

    def load_by_file(self) -> None:
        """Have servers that poll models.config load the new version beside the old one, then move the labels.

        A server can start with each of these files, and a file is replaced only when all servers have done what it
        says: a server that reads seldom must not miss one.
        """
        note = partial(steps.note_before, plan=self.plan, deadline=self.deadline)
        known = self._take(self._each(self.servers, note))
        self.before = dict(zip(map(_name, self.servers), known, strict=True))
        if self.plan.version is None:
            return
        write_config(self.repo, self.plan.between)
        self.repo.disk.step("switch.file-between")
        self._take(self._each(self.servers, self._wait_loaded_by_file))
        if self.plan.moves_labels:
            write_config(self.repo, self.plan.labelled)
            self.repo.disk.step("switch.file-labelled")
            self._take(
                self._each(
                    self.servers,
                    partial(steps.wait_labelled, plan=self.plan, deadline=self.deadline),
                )
            )

    def _wait_loaded_by_file(self, server: ServingClient) -> None:
        with self._polling(server):
            self._wait_loaded(server)

    def _polling(self, server: ServingClient) -> AbstractContextManager[None]:
        before = self.before[_name(server)].states
        return live.polling(server, self.plan.model, before, deadline=self.deadline)

    def drop_old(self) -> tuple[EndpointResult, ...]:
        """Have servers unload unwanted versions, and prove which version answers then."""
        if not self.servers:
            return ()
        if not self.rules.poll:
            self._take(self._each(self.servers, self._send_final))
        self.repo.disk.step("switch.drop-told")
        results = self._take(self._each(self.servers, self._wait_final))
        self.repo.disk.step("switch.dropped")
        return results

    def go_back(
        self,
        servers: Sequence[ServingClient],
        error: ServingRepoError,
        *,
        committed: bool,
        uncertain: set[str],
    ) -> SwitchFailed:
        """Put file and servers back, those that are missing too; return the error that says how that went."""
        failed = put_back(
            self.repo,
            self.plan,
            servers,
            error=error,
            committed=committed,
            uncertain=uncertain,
            asked=self.asked,
            dropped=self.dropped,
            poll=self.rules.poll,
        )
        failed.stages = tuple(self.verdicts)
        return failed

    def note_lagging(self) -> None:
        """Write down which servers do not follow yet."""
        why = {endpoint: error.message for endpoint, error in self.missing.items()}
        if self.plan.changes and not self.rules.poll:
            model = self.plan.model
            others = f"not reloaded for {model}: its list of endpoints does not have this server"
            why = {**dict.fromkeys(self.rules.other_servers, others), **why}
        if why:
            now = self.repo.now()
            servers = (LaggingServer(endpoint=one, since=now, why=why[one]) for one in why)
            note_lagging(self.repo, servers)

    def with_verdicts(self, results: Sequence[EndpointResult]) -> tuple[EndpointResult, ...]:
        """Return the results with the last verdict of each endpoint, and with the endpoints that are missing."""
        last = {name: verdict for verdict in self.verdicts for name in verdict.endpoints}
        watched = (
            msgspec.structs.replace(one, outcome=f"{one.outcome}; watched: {last[one.endpoint]}")
            if one.endpoint in last
            else one
            for one in results
        )
        missing = (
            EndpointResult(
                name, f"left out, and does not follow yet: {error.message}", follows=False
            )
            for name, error in self.missing.items()
        )
        return (*watched, *missing)

    def _those(self, stage: Sequence[ServingClient]) -> list[ServingClient]:
        """Return the servers of a stage that still take part."""
        return [server for server in self.servers if server in stage]

    @property
    def _each(self) -> partial[tuple[Answer[ServingClient, Any], ...]]:
        """How a step is taken on several servers at once: a failure stops the others, unless it may be missing."""
        return partial(each, deadline=self.deadline, halt=self._must_not_miss)

    def _take(self, answers: Sequence[Answer[ServingClient, R]]) -> tuple[R, ...]:
        """Return what a step came to on all servers. Those that may be missing drop out.

        Raises:
            ServingRepoError: The step failed on another one.
        """
        errors = []
        for answer in answers:
            if answer.error is None:
                continue
            if self._may_miss(answer.error):
                self.missing[str(answer.of.endpoint)] = answer.error
                self.servers.remove(answer.of)
            else:
                errors.append(answer.error)
        if errors:
            raise together([*self.missing.values(), *errors])
        return tuple(answer.value for answer in answers if answer.error is None)  # type: ignore[misc]

    def _must_not_miss(self, error: ServingRepoError) -> bool:
        """Tell whether the error of one server stops the others."""
        return not self._may_miss(error)

    def _may_miss(self, error: ServingRepoError) -> bool:
        """Tell whether the switch goes on without the server of this error: at least one server must follow."""
        may_be_down = len(self.missing) < self.rules.allow_down and len(self.servers) > 1
        return may_be_down and isinstance(error, EndpointUnreachable)


def _name(server: ServingClient) -> str:
    return str(server.endpoint)
