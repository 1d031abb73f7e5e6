"""A roll-out in stages: a few endpoints first, watched, then more; or back by itself.

In a stage the new version is loaded beside the old one, so a higher one already answers unlabelled clients there;
beside a higher one a lower one answers nobody, so a stage that goes down drops the old version as well. While the
new one is watched it must stay loaded, answer the probe cases, not fail more often than the servers that do not
have it yet, and pass a command of the user's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import SwitchFailed, UsageError
from servingrepo.rollout import live
from servingrepo.rollout.hooks import run_command
from servingrepo.rollout.parallel import each, together
from servingrepo.rollout.probes import probe
from servingrepo.serving.deadline import Deadline
from servingrepo.serving.metrics import Requests, count_requests, page_of
from servingrepo.serving.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.rollout.plans import Plan
    from servingrepo.rollout.rules import Rules
    from servingrepo.savedmodel import Inspection
    from servingrepo.serving.client import ServingClient

_EVERY_SECONDS = 1.0
_CALL_SECONDS = 10.0
_GATE_SECONDS = 600.0
TOLERATED = 0.01
"""By how much the part of requests that fail may be higher where the new version answers."""


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


def observe(
    stage: Sequence[ServingClient],
    rest: Sequence[ServingClient],
    plan: Plan,
    rules: Rules,
    export: Inspection | None,
) -> dict[str, str]:
    """Watch the endpoints that have the new version; say of each what was seen.

    Raises:
        SwitchFailed, SmokeFailed, LoadFailed, EndpointUnreachable: They are not to keep it.
    """
    target = plan.target or 0
    counted = _count([*stage, *rest], plan.model, rules) if rules.counts_errors else {}
    end = Deadline.after(rules.watch)
    while True:
        deadline = Deadline.after(_CALL_SECONDS)

        def look(client: ServingClient, deadline: Deadline = deadline) -> None:
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
        if end.passed:
            break
        end.pause(_EVERY_SECONDS)
    told = _compare(stage, rest, plan, rules, counted) if rules.counts_errors else {}
    if rules.gate:
        _pass_gate(stage, rest, plan, rules)
    watched = f"watched for {rules.watch:.3g} s"
    return {
        name: f"{watched}, {told[name]}" if name in told else watched
        for name in (str(client.endpoint) for client in stage)
    }


def _count(clients: Sequence[ServingClient], model: str, rules: Rules) -> dict[str, Requests]:
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
    errors = [answer.error for answer in answers if answer.error is not None]
    if errors:
        raise together(errors)
    return {str(one.of.endpoint): one.value or Requests() for one in answers}


def _compare(
    stage: Sequence[ServingClient],
    rest: Sequence[ServingClient],
    plan: Plan,
    rules: Rules,
    before: dict[str, Requests],
) -> dict[str, str]:
    """Compare how often requests failed with and without the new version."""
    now = _count([*stage, *rest], plan.model, rules)
    since = {name: one.since(before[name]) for name, one in now.items()}
    with_it, without = Requests(), Requests()
    for client in stage:
        with_it = with_it.plus(since[str(client.endpoint)])
    for client in rest:
        without = without.plus(since[str(client.endpoint)])
    if with_it.rate > without.rate + TOLERATED:
        raise SwitchFailed(
            f"{plan.model}@{plan.target} fails too often: {with_it.errors} of {with_it.all} requests in "
            f"{rules.watch:.3g} s, {without.errors} of {without.all} where it is not loaded",
            problems=[
                f"{client.endpoint}: {since[str(client.endpoint)].errors} of "
                f"{since[str(client.endpoint)].all} requests failed"
                for client in stage
            ],
            hint="see the server's log for what failed",
        )
    return {str(client.endpoint): _said(since[str(client.endpoint)]) for client in stage}


def _said(one: Requests) -> str:
    if not one.all:
        return "no request came, so errors were not checked"
    return f"{one.errors} of {one.all} requests failed"


def _pass_gate(
    stage: Sequence[ServingClient], rest: Sequence[ServingClient], plan: Plan, rules: Rules
) -> None:
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
            f"the gate said no to {plan.model}@{plan.target}: {rules.gate}: {trouble}",
            hint="it got the stage as JSON on stdin; correct what it complains of",
        )
