"""The verdict of a stage: go, stop or inconclusive, from what servers count of requests and errors.

A stage is compared with its control: servers without the new version, or its own servers before they had it. The new
version must not fail more often. The interval is Miettinen and Nurminen's (Comparative analysis of two rates,
Statistics in Medicine 4, 1985): it holds for rates near zero, where errors of servers are, and for groups of
different sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.fleet.parallel import each
from servingrepo.repository.records import StageVerdict
from servingrepo.servers.metrics import Requests, count_requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.fleet.plans import Plan
    from servingrepo.fleet.rules import Rules
    from servingrepo.servers.client import ServingClient

TOLERATED = 0.01
"""By how much the error rate may be higher where the new version answers."""

_HALVINGS = 50
"""Each step halves the interval in which the bound is; it is 2 wide at first."""

_CALL_SECONDS = 10.0
_CONFIDENCE = 0.95
_BEYOND_DOUBT = 0.999
"""Errors are counted every second: at 95 % one count in twenty would be wrong."""


class Counts(msgspec.Struct, frozen=True):
    """A model's requests up to one moment, by endpoint, as servers count them; or why they cannot be read."""

    requests: dict[str, Requests] = {}
    unreadable: str = ""

    def since(self, before: Counts, servers: Sequence[ServingClient]) -> Requests:
        """Return the requests of these servers since an earlier count, all together."""
        total = Requests()
        for name in (str(server.endpoint) for server in servers):
            total = total.plus(self.requests[name].since(before.requests[name]))
        return total


@dataclass(frozen=True)
class Control:
    """The requests that those of a stage are compared with: of other `servers` meanwhile, or of its own `before`.

    The stage's own requests before the change are counted already, or it is known why they could not be read.
    """

    servers: tuple[ServingClient, ...] = ()
    before: Requests | None = None
    unreadable: str = ""

    @property
    def name(self) -> str:
        """The servers that got these requests, in words: the history keeps them."""
        return "the servers without it" if self.servers else "the same servers before it"


def count(servers: Sequence[ServingClient], model: str, rules: Rules) -> Counts:
    """Read the counts of all servers at once."""
    answers = each(
        servers,
        lambda server: count_requests(
            server.endpoint,
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
    """Return the control of a stage that is about to get the new version.

    These are the servers that do not have it yet, if there are any. Else it is what the stage's own servers counted
    since the roll-out has `begun`. A stage that is `alone` is watched for that now, for as long as afterwards.
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


def judge(
    stage: Sequence[ServingClient],
    before: Counts,
    now: Counts,
    control: Control,
    rules: Rules,
    *,
    early: bool = False,
) -> StageVerdict:
    """Judge a stage by its requests and those of its control. `early`, only errors beyond doubt stop it."""
    names = tuple(str(server.endpoint) for server in stage)
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
        theirs = now.since(before, control.servers)
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


def lower_bound(stage: Requests, control: Requests, *, confidence: float) -> float:
    """Return the lower bound of a one-sided interval of the difference of two error rates, stage less control.

    Args:
        stage: Requests where the new version answers; at least one.
        control: Requests where it does not; at least one.
        confidence: Such as 0.95: that often the true difference is not below the bound.
    """
    from statistics import NormalDist  # with decimal and fractions: most changes watch no stage

    wanted = NormalDist().inv_cdf(confidence)
    low, high = -1.0, stage.errors / stage.all - control.errors / control.all
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # The score falls as the difference that is supposed rises.
        low, high = (middle, high) if _score(stage, control, middle) > wanted else (low, middle)
    return low


def _score(stage: Requests, control: Requests, difference: float) -> float:
    """Return how many standard errors lie between what was seen and a difference that is supposed."""
    seen = stage.errors / stage.all - control.errors / control.all
    rate = _likeliest_rate(stage, control, difference)
    other = min(max(rate + difference, 0.0), 1.0)
    size = stage.all + control.all
    variance = (other * (1 - other) / stage.all + rate * (1 - rate) / control.all) * size
    distance = seen - difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance / max(size - 1, 1))


def _likeliest_rate(stage: Requests, control: Requests, difference: float) -> float:
    """Return the control's likeliest error rate if the stage's is higher by `difference`: a root of a cubic."""
    size, errors = stage.all + control.all, stage.errors + control.errors
    square = ((size + control.all) * difference - size - errors) / size
    linear = ((control.all * difference - size - 2 * control.errors) * difference + errors) / size
    constant = control.errors * difference * (1 - difference) / size
    q = square**3 / 27 - linear * square / 6 + constant / 2
    p = math.copysign(math.sqrt(max(square**2 / 9 - linear / 3, 0.0)), q)
    angle = (math.pi + math.acos(min(max(q / p**3, -1.0), 1.0))) / 3 if p else math.pi / 2
    return min(max(2 * p * math.cos(angle) - square / 3, 0.0, -difference), 1.0, 1.0 - difference)
