"""A roll-out in stages: a few endpoints first, watched, then more; or back by itself.

In a stage the new version is loaded beside the old one, so a higher one already answers unlabelled clients there;
beside a higher one a lower one answers nobody, so a stage that goes down drops the old version as well. While the
new one is watched it must stay loaded and answer the probe cases. At its end it must not have failed more often than
its control, and pass the stage check, a command of the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import SwitchFailed, UsageError
from servingrepo.fleet import live
from servingrepo.fleet.error_rates import TOLERATED, lower_bound
from servingrepo.fleet.failures import together
from servingrepo.fleet.hooks import run_command
from servingrepo.fleet.parallel import each
from servingrepo.fleet.probes import probe
from servingrepo.masking import mask_text
from servingrepo.repository.records import StageVerdict
from servingrepo.servers.metrics import Requests, count_requests, page_of
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.fleet.plans import Plan
    from servingrepo.fleet.rules import Rules
    from servingrepo.savedmodel import Inspection
    from servingrepo.servers.client import ServingClient

_EVERY_SECONDS = 1.0
_CALL_SECONDS = 10.0
_GATE_SECONDS = 600.0
_CONFIDENCE = 0.95
_BEYOND_DOUBT = 0.999
"""Errors are looked at every second: at 95 % one look in twenty would be wrong."""


def split(clients: Sequence[ServingClient], rules: Rules) -> list[list[ServingClient]]:
    """Return the endpoints in the order and the groups in which they get the new version.

    Raises:
        UsageError: `first` names an endpoint that takes no part, or `batch` is neither a part nor a number.
    """
    by_name = {str(client.endpoint): client for client in clients}
    unknown = [name for name in rules.first if name not in by_name]
    if unknown:
        raise UsageError(
            f"--first names endpoints that take no part: {', '.join(unknown)}",
            hint=f"they are: {', '.join(by_name)}",
        )
    first = [by_name[name] for name in rules.first]
    rest = [client for client in clients if client not in first]
    size = batch_size(rules.batch, len(clients)) if rules.batch else len(rest)
    stages = [first] if first else []
    stages += [rest[at : at + size] for at in range(0, len(rest), max(size, 1))]
    return stages


def check_rules(rules: Rules) -> Rules:
    """Refuse rules that cannot be kept, before anything begins; return them as they are.

    Raises:
        UsageError: A batch, a port or a URL that is none.
    """
    if rules.batch:
        batch_size(rules.batch, 1)
    if rules.metrics_port and not rules.metrics_port.removeprefix("+").isdecimal():
        raise UsageError(
            f"not a port: {rules.metrics_port!r}",
            hint="give a port such as 8501, or +1 for gRPC port + 1",
        )
    if rules.metrics_port and rules.metrics_url:
        raise UsageError(
            "--metrics-port and --metrics-url say the same in two ways", hint="give one of them"
        )
    if rules.metrics_url:
        page_of(rules.metrics_url, Endpoint("localhost", 8500))
    return rules


def batch_size(text: str, count: int) -> int:
    """Return how many endpoints a batch such as 25% or 2 is, at least one.

    Raises:
        UsageError: It is neither.
    """
    number, percent = text.removesuffix("%"), text.endswith("%")
    if not number.isdecimal() or not int(number):
        raise UsageError(f"not a batch: {text!r}", hint="give a part such as 25%, or a number")
    return max(1, count * int(number) // 100) if percent else int(number)


def refuse_stages(plan: Plan) -> None:
    """Refuse stages for a change that leaves no version to watch.

    Raises:
        UsageError: The model is taken out.
    """
    if plan.target is None:
        raise UsageError(
            f"taking {plan.model} out cannot go in stages: nothing is left that could be watched",
            hint="leave --first, --batch, --watch-for and --gate out",
        )


class Counts(msgspec.Struct, frozen=True):
    """What servers count of a model's requests at one moment, by endpoint; or why that cannot be read."""

    requests: dict[str, Requests] = {}
    unreadable: str = ""

    def since(self, before: Counts, clients: Sequence[ServingClient]) -> Requests:
        """Return what came to these servers since then, all together."""
        total = Requests()
        for name in (str(client.endpoint) for client in clients):
            total = total.plus(self.requests[name].since(before.requests[name]))
        return total


@dataclass(frozen=True)
class Control:
    """What the requests of a stage are compared with: other servers meanwhile, or its own before the change.

    Of its own what came before is known already (`before`), or why it could not be read.
    """

    clients: tuple[ServingClient, ...] = ()
    before: Requests | None = None
    unreadable: str = ""

    @property
    def name(self) -> str:
        """Whose requests they are."""
        return "the servers without it" if self.clients else "the same servers before it"


def count(clients: Sequence[ServingClient], model: str, rules: Rules) -> Counts:
    """Read what servers count, all at once."""
    answers = each(
        clients,
        lambda client: count_requests(
            client.endpoint,
            model,
            port=rules.metrics_port,
            url=rules.metrics_url,
            timeout=_CALL_SECONDS,
        ),
    )
    errors = [answer.error.message for answer in answers if answer.error is not None]
    if errors:
        return Counts(unreadable="; ".join(errors))
    return Counts({str(one.of.endpoint): one.value or Requests() for one in answers})


def control_of(
    stage: Sequence[ServingClient],
    rest: Sequence[ServingClient],
    plan: Plan,
    rules: Rules,
    begun: Counts,
    *,
    alone: bool,
) -> Control:
    """Return what a stage that is about to get the new version will be compared with.

    Servers that do not have it yet, if there are some. Else what came to the stage's own servers since the roll-out
    has `begun`; a stage that is `alone` is watched for that now, as long as it will be afterwards.
    """
    if rest:
        return Control(tuple(rest))
    if alone:
        Deadline.after(rules.watch).pause(rules.watch)
    now = count(stage, plan.model, rules)
    unreadable = begun.unreadable or now.unreadable
    if unreadable:
        return Control(before=Requests(), unreadable=unreadable)
    return Control(before=now.since(begun, stage))


def observe(
    stage: Sequence[ServingClient],
    plan: Plan,
    rules: Rules,
    export: Inspection | None,
    control: Control,
) -> StageVerdict:
    """Watch the endpoints that have the new version, and judge it.

    The version stays loaded and answers, also the user's own cases. Errors are judged when the time is over; before
    that only if they are beyond doubt.

    Raises:
        SwitchFailed, SmokeFailed, LoadFailed, EndpointUnreachable: They are not to keep it.
    """
    both = [*stage, *control.clients]
    counted = count(both, plan.model, rules) if rules.counts_errors else Counts()
    end = Deadline.after(rules.watch)
    while True:
        _look(stage, plan, rules, export)
        last = end.passed
        if rules.counts_errors:
            now = count(both, plan.model, rules)
            verdict = judge(stage, counted, now, control, rules, early=not last)
        else:
            names = tuple(str(client.endpoint) for client in stage)
            verdict = StageVerdict(verdict="go", why="errors not checked", endpoints=names)
        if last or verdict.verdict == "stop":
            return verdict
        end.pause(_EVERY_SECONDS)


def _look(
    stage: Sequence[ServingClient], plan: Plan, rules: Rules, export: Inspection | None
) -> None:
    target = plan.target or 0
    deadline = Deadline.after(_CALL_SECONDS)

    def look(client: ServingClient) -> None:
        live.prove_pinned(client, plan.model, [target], deadline=deadline)
        if plan.goes_down:
            live.wait_answering(client, plan.model, max(plan.new_pins), deadline=deadline)
        if export is not None:
            probe(
                client,
                plan.model,
                target,
                cases=rules.probes,
                inspection=export,
                deadline=deadline,
            )

    errors = [answer.error for answer in each(stage, look) if answer.error is not None]
    if errors:
        raise together(errors)


def judge(
    stage: Sequence[ServingClient],
    before: Counts,
    now: Counts,
    control: Control,
    rules: Rules,
    *,
    early: bool = False,
) -> StageVerdict:
    """Judge a stage by its requests and those of its control; `early` only what is beyond doubt stops it."""
    names = tuple(str(client.endpoint) for client in stage)
    unreadable = before.unreadable or now.unreadable or control.unreadable
    if unreadable:
        return StageVerdict(
            verdict="inconclusive",
            why=f"errors were not judged: {unreadable}",
            endpoints=names,
            control=control.name,
        )
    ours = now.since(before, stage)
    theirs = control.before
    if theirs is None:
        theirs = now.since(before, control.clients)
    verdict = StageVerdict(
        verdict="go",
        endpoints=names,
        requests=ours.all,
        errors=ours.errors,
        exhausted=ours.exhausted,
        control=control.name,
        control_requests=theirs.all,
        control_errors=theirs.errors,
        control_exhausted=theirs.exhausted,
    )
    if min(ours.all, theirs.all) < max(rules.min_requests, 1):
        why = f"too few requests: {rules.min_requests} are needed on both sides (--min-requests)"
        return msgspec.structs.replace(verdict, verdict="inconclusive", why=why)
    bound = lower_bound(ours, theirs, confidence=_CONFIDENCE)
    asked = lower_bound(ours, theirs, confidence=_BEYOND_DOUBT) if early else bound
    return msgspec.structs.replace(
        verdict,
        verdict="stop" if asked > TOLERATED else "go",
        why="it fails too often" if asked > TOLERATED else "",
        lower_bound=round(bound, 6),
    )


def refuse_stopped(verdict: StageVerdict, plan: Plan, rules: Rules) -> None:
    """Refuse to go on after a verdict that does not allow it.

    Raises:
        SwitchFailed: The stage fails, or nobody can say whether it does.
    """
    what = f"{plan.model}@{plan.target}"
    if verdict.verdict == "stop":
        raise SwitchFailed(
            f"{what} fails too often: {verdict}",
            problems=[f"watched: {', '.join(verdict.endpoints)}"],
            hint="see the servers' logs for what failed",
        )
    if verdict.verdict == "inconclusive" and not rules.allow_inconclusive:
        raise SwitchFailed(
            f"the stage of {what} is {verdict}",
            hint="watch it longer (--watch-for), ask for fewer requests (--min-requests), or go on without a "
            "verdict: --allow-inconclusive",
        )


def pass_check(
    stage: Sequence[ServingClient], rest: Sequence[ServingClient], plan: Plan, rules: Rules
) -> None:
    """Run the user's own stage check, if there is one.

    Raises:
        SwitchFailed: It said no.
    """
    if not rules.gate:
        return
    record = msgspec.json.encode(
        {
            "schema": 1,
            "model": plan.model,
            "version": plan.target,
            "before": plan.old_pins,
            "endpoints": [str(client.endpoint) for client in stage],
            "rest": [str(client.endpoint) for client in rest],
        }
    )
    trouble = run_command(rules.gate, record, timeout=_GATE_SECONDS)
    if trouble:
        raise SwitchFailed(
            f"the gate said no to {plan.model}@{plan.target}: {mask_text(rules.gate)}: {trouble}",
            hint="it got the stage as JSON on stdin; correct what it complains of",
        )
