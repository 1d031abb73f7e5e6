"""A roll-out in stages: a few servers get the new version first and are watched, then more; or all go back.

In a stage servers load the new version beside the old one. A higher version already answers unlabelled clients there.
A lower version does not, so a stage that goes down drops the old version too. While a stage is watched, the new
version must stay loaded and answer the probe cases. In the end it must not have failed more often than its control,
and the stage check, a command of the user's own, must end well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import SwitchFailed, UsageError
from servingrepo.fleet import live
from servingrepo.fleet.failures import together
from servingrepo.fleet.hooks import run_command
from servingrepo.fleet.parallel import each
from servingrepo.fleet.steps import probe
from servingrepo.fleet.verdicts import Control, Counts, count, judge
from servingrepo.masking import mask_text
from servingrepo.repository.records import StageVerdict
from servingrepo.servers.metrics import page_of
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.fleet.plans import Plan
    from servingrepo.fleet.rules import Rules
    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.servers.client import ServingClient

_EVERY_SECONDS = 1.0
_CALL_SECONDS = 10.0
_CHECK_SECONDS = 600.0


def split(servers: Sequence[ServingClient], rules: Rules) -> list[list[ServingClient]]:
    """Return the servers of each stage, in order.

    Raises:
        UsageError: `first` names an endpoint that takes no part, or `batch` is neither a part nor a number.
    """
    by_name = {str(server.endpoint): server for server in servers}
    unknown = [name for name in rules.first if name not in by_name]
    if unknown:
        raise UsageError(
            f"--first names endpoints that take no part: {', '.join(unknown)}",
            hint=f"these take part: {', '.join(by_name)}",
        )
    first = [by_name[name] for name in rules.first]
    rest = [server for server in servers if server not in first]
    size = batch_size(rules.batch, len(servers)) if rules.batch else len(rest)
    stages = [first] if first else []
    stages += [rest[at : at + size] for at in range(0, len(rest), max(size, 1))]
    return stages


def check_rules(rules: Rules) -> Rules:
    """Refuse rules that cannot be kept, before anything begins; return them as they are.

    Raises:
        UsageError: The batch, the port or the URL cannot be read.
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
    """Return how many servers a batch such as 25% or 2 has: at least one.

    Raises:
        UsageError: The text is neither a part nor a number.
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
    if plan.version is None:
        raise UsageError(
            f"taking {plan.model} out cannot go in stages: no version is left to watch",
            hint="leave --first, --batch, --watch-for and --gate out",
        )


def watch_stage(
    stage: Sequence[ServingClient],
    plan: Plan,
    rules: Rules,
    export: Inspection | None,
    control: Control,
) -> StageVerdict:
    """Watch the servers that have the new version, and return the verdict.

    The version must stay loaded and answer, also the user's own cases. Errors are judged when the time is over, and
    earlier only if they are beyond doubt.

    Raises:
        SwitchFailed, SmokeFailed, EndpointUnreachable, and others of a server: The version does not answer.
    """
    both = [*stage, *control.servers]
    counted = count(both, plan.model, rules) if rules.counts_errors else Counts()
    end = Deadline.after(rules.watch)
    while True:
        _prove(stage, plan, rules, export)
        last = end.passed
        if rules.counts_errors:
            now = count(both, plan.model, rules)
            verdict = judge(stage, counted, now, control, rules, early=not last)
        else:
            names = tuple(str(server.endpoint) for server in stage)
            verdict = StageVerdict(verdict="go", why="errors not checked", endpoints=names)
        if last or verdict.verdict == "stop":
            return verdict
        end.pause(_EVERY_SECONDS)


def _prove(
    stage: Sequence[ServingClient], plan: Plan, rules: Rules, export: Inspection | None
) -> None:
    """Prove that the new version answers on each server of a stage."""
    version = plan.version or 0
    deadline = Deadline.after(_CALL_SECONDS)

    def prove(server: ServingClient) -> None:
        live.prove_pinned(server, plan.model, [version], deadline=deadline)
        if plan.goes_down:
            live.wait_answering(server, plan.model, max(plan.new_pins), deadline=deadline)
        if export is not None:
            probe(
                server,
                plan.model,
                version,
                cases=rules.probes,
                inspection=export,
                deadline=deadline,
            )

    errors = [answer.error for answer in each(stage, prove) if answer.error is not None]
    if errors:
        raise together(errors)


def refuse_stopped(verdict: StageVerdict, plan: Plan, rules: Rules) -> None:
    """Refuse to go on after a verdict that does not allow it.

    Raises:
        SwitchFailed: The verdict is stop, or inconclusive where that was not allowed.
    """
    what = f"{plan.model}@{plan.version}"
    if verdict.verdict == "stop":
        raise SwitchFailed(
            f"{what} fails too often: {verdict}",
            problems=[f"watched: {', '.join(verdict.endpoints)}"],
            hint="the servers' logs show the errors",
        )
    if verdict.verdict == "inconclusive" and not rules.allow_inconclusive:
        raise SwitchFailed(
            f"the stage of {what} is {verdict}",
            hint="watch it longer (--watch-for), ask for fewer requests (--min-requests), or go on without a "
            "verdict: --allow-inconclusive",
        )


def pass_stage_check(
    stage: Sequence[ServingClient], rest: Sequence[ServingClient], plan: Plan, rules: Rules
) -> None:
    """Run the user's own stage check, if there is one.

    Raises:
        SwitchFailed: The stage check failed.
    """
    if not rules.gate:
        return
    record = msgspec.json.encode(
        {
            "schema": 1,
            "model": plan.model,
            "version": plan.version,
            "before": plan.old_pins,
            "endpoints": [str(server.endpoint) for server in stage],
            "rest": [str(server.endpoint) for server in rest],
        }
    )
    trouble = run_command(rules.gate, record, timeout=_CHECK_SECONDS)
    if trouble:
        raise SwitchFailed(
            f"the stage check of {plan.model}@{plan.version} failed: {mask_text(rules.gate)}: {trouble}",
            hint="the command (--gate) got the stage as JSON on stdin; correct the problem that it reports",
        )
