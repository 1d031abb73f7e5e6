"""Drift: by how much a candidate's answers differ from the live version's, beyond what live differs from itself.

Both versions get the same requests, and live gets each twice: its two answers show the noise floor (dropout left on,
sums on a GPU, hash order). If the candidate were live, its answer and live's second one could be exchanged. All tests
here build on that: of the rows where only one of the two differs, half would be the candidate's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import DriftInconclusive, SmokeFailed
from servingrepo.smoke.report import Latency

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Accuracy",
    "Drift",
    "DriftBudget",
    "DriftVerdict",
    "OutputDrift",
    "churn_interval",
    "judge_drift",
    "judge_outputs",
    "mcnemar",
    "merge",
    "merge_accuracy",
    "open_cases",
]

CONFIDENCE = 0.95
"""Of the intervals. A finding against the candidate may be chance in at most half of the rest: one side of it."""

REPEATS = 5
"""How often a case is asked again, to tell a difference that comes every time from a noise that live did not show.

A noise that shows with chance q does so five times on one side and never on the other in (q (1 - q))^5 < 0.1 %."""

_BISECTIONS = 60


class DriftBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate may differ by; None means that nobody set a limit.

    Attributes:
        max_diff: The largest absolute difference of an element of a floating-point output.
        max_churn: The share of rows, 0 to 1, whose argmax or label may change.
    """

    max_diff: float | None = None
    max_churn: float | None = None


class OutputDrift(msgspec.Struct, frozen=True, kw_only=True):
    """The drift of one output over many rows. A row is an element of the first dimension.

    Attributes:
        signature: The signature's key.
        output: The alias of the output.
        rows: The rows that were compared.
        elements: The numbers that were compared; 0 for an output that has none.
        largest: The largest absolute difference of the candidate; infinite where one side is not finite, or lacks it.
        total: The sum of all finite differences.
        noise_largest: The largest difference of live from itself.
        noise_total: The sum of its finite differences.
        over: The rows in which only the candidate is over the budget of differences.
        noise_over: The rows in which only live is over it, against itself.
        labelled: The rows that have an argmax or label.
        changed: The rows of these in which it changes.
        noise_changed: The rows of these in which it changes between live's two answers.
        only_changed: The rows of these in which it changes for the candidate only.
        only_noise: The rows of these in which it changes between live's answers only.
        worst: The case and the row, from 0, of the largest difference.
        first_changed: The case and the row, from 0, where the argmax or label changes first for the candidate only.
    """

    signature: str
    output: str
    rows: int = 0
    elements: int = 0
    largest: float = 0.0
    total: float = 0.0
    noise_largest: float = 0.0
    noise_total: float = 0.0
    over: int = 0
    noise_over: int = 0
    labelled: int = 0
    changed: int = 0
    noise_changed: int = 0
    only_changed: int = 0
    only_noise: int = 0
    worst: tuple[str, int] | None = None
    first_changed: tuple[str, int] | None = None

    @property
    def mean(self) -> float:
        """The mean absolute difference."""
        return self.total / self.elements if self.elements else 0.0

    @property
    def noise_mean(self) -> float:
        """The mean absolute difference of live from itself."""
        return self.noise_total / self.elements if self.elements else 0.0

    @property
    def churn(self) -> float | None:
        """The share of rows whose argmax or label changes; None where no row has one."""
        return self.changed / self.labelled if self.labelled else None


class DriftVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a budget says of one output.

    Attributes:
        signature: The signature's key.
        output: The alias of the output.
        budget: The budget's name.
        outcome: What it says; `inconclusive` means that the cases do not decide.
        reason: The figure behind it.
    """

    signature: str
    output: str
    budget: Literal["max-diff", "max-churn"]
    outcome: Literal["passed", "failed", "inconclusive"]
    reason: str

    def __str__(self) -> str:
        """Return the line for people."""
        return f"{self.signature}: {self.output}: {self.budget} {self.outcome}: {self.reason}"


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """How often both versions are right about rows whose label is known.

    Attributes:
        signature: The signature's key.
        output: The alias of the output.
        rows: The rows that have a label.
        live: Those that live gets right.
        candidate: Those that the candidate gets right.
        only_live: Those that live alone gets right.
        only_candidate: Those that the candidate alone gets right.
    """

    signature: str
    output: str
    rows: int = 0
    live: int = 0
    candidate: int = 0
    only_live: int = 0
    only_candidate: int = 0

    @property
    def p_value(self) -> float:
        """The chance of a difference as large as this one if both were equally good: McNemar's exact test."""
        return mcnemar(self.only_live, self.only_candidate)


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How a candidate's answers differ from those of the live version.

    Attributes:
        live: The live version.
        cases: The cases that both answered.
        left: The cases that were not compared, with the reason: the first twenty.
        left_count: How many were not compared.
        outputs: The drift of each output that both have.
        accuracy: Of each output for which cases have labels.
        live_latency: How long the live version took to answer, in turns with the candidate. The first answer of each
            signature does not count; None if there were no others.
        latency: How long the candidate took.
        verdicts: What the budget says of each output; empty without a budget.
        one_sided: The inputs and outputs that only one of both has.
        notes: What to know of the comparison: that a version keeps state, for one.
        why: Why nothing was compared; empty if something was.
    """

    live: int
    cases: int = 0
    left: tuple[str, ...] = ()
    left_count: int = 0
    outputs: tuple[OutputDrift, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    live_latency: Latency | None = None
    latency: Latency | None = None
    verdicts: tuple[DriftVerdict, ...] = ()
    one_sided: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    why: str = ""

    @property
    def failed(self) -> tuple[DriftVerdict, ...]:
        """The verdicts that speak against the candidate."""
        return tuple(one for one in self.verdicts if one.outcome == "failed")

    @property
    def inconclusive(self) -> tuple[DriftVerdict, ...]:
        """The verdicts that decide nothing."""
        return tuple(one for one in self.verdicts if one.outcome == "inconclusive")


def merge(one: OutputDrift, other: OutputDrift) -> OutputDrift:
    """Return the drift of one output over the rows of both. The worst row is the first of the largest difference."""
    worse = one.worst is None or other.largest > one.largest
    return OutputDrift(
        signature=one.signature,
        output=one.output,
        rows=one.rows + other.rows,
        elements=one.elements + other.elements,
        largest=max(one.largest, other.largest),
        total=one.total + other.total,
        noise_largest=max(one.noise_largest, other.noise_largest),
        noise_total=one.noise_total + other.noise_total,
        over=one.over + other.over,
        noise_over=one.noise_over + other.noise_over,
        labelled=one.labelled + other.labelled,
        changed=one.changed + other.changed,
        noise_changed=one.noise_changed + other.noise_changed,
        only_changed=one.only_changed + other.only_changed,
        only_noise=one.only_noise + other.only_noise,
        worst=other.worst if worse and other.worst is not None else one.worst,
        first_changed=one.first_changed or other.first_changed,
    )


def merge_accuracy(one: Accuracy, other: Accuracy) -> Accuracy:
    """Return the accuracy over the rows of both."""
    return Accuracy(
        signature=one.signature,
        output=one.output,
        rows=one.rows + other.rows,
        live=one.live + other.live,
        candidate=one.candidate + other.candidate,
        only_live=one.only_live + other.only_live,
        only_candidate=one.only_candidate + other.only_candidate,
    )


def judge_outputs(
    drifts: Sequence[OutputDrift],
    budget: DriftBudget,
    *,
    repeats: Sequence[Sequence[OutputDrift]] = (),
) -> tuple[DriftVerdict, ...]:
    """Say of each output whether its drift is within the budget: passed, failed or inconclusive.

    A candidate fails if it is over the budget by more than chance and by more than live differs from itself. The
    chance that one which equals live fails is at most 2.5 % over all outputs together.

    Args:
        drifts: The outputs.
        budget: The limits; without one there is no verdict.
        repeats: For each output its drifts in the cases that `open_cases` names, asked again `REPEATS` times.
    """
    again = [*repeats, *([()] * (len(drifts) - len(repeats)))]
    judged: list[DriftVerdict] = []
    numbers = [one for one in drifts if one.elements]
    labels = [one for one in drifts if one.labelled]
    tests = len(numbers) * (budget.max_diff is not None) + len(labels) * (
        budget.max_churn is not None
    )
    for one, more in zip(drifts, again, strict=True):
        if budget.max_diff is not None and one.elements:
            judged.append(_judge_difference(one, budget.max_diff, more, tests))
        if budget.max_churn is not None and one.labelled:
            judged.append(_judge_churn(one, budget.max_churn, more, tests))
    return tuple(judged)


def judge_drift(found: Drift, budget: DriftBudget, *, model: str, allow_inconclusive: bool) -> None:
    """Accept a candidate whose drift is within the budget. Without a budget every drift is accepted.

    Raises:
        SmokeFailed: It drifts more than allowed; the problems have the figures.
        DriftInconclusive: The cases do not decide, and that is not allowed.
    """
    if budget == DriftBudget():
        return
    what = f"the candidate for {model}"
    if found.failed:
        raise SmokeFailed(
            f"{what} differs from the live version {found.live} by more than its budget allows",
            problems=[str(one) for one in found.failed],
            hint="look at the cases that the problems name; if the change is wanted, give a higher --max-diff or "
            "--max-churn",
        )
    open_questions = [str(one) for one in found.inconclusive]
    if found.why:
        open_questions.append(f"nothing was compared: {found.why}")
    elif not found.verdicts:
        open_questions.append(
            "no output has what the budget is about: numbers, or an argmax or label"
        )
    if open_questions and not allow_inconclusive:
        raise DriftInconclusive(
            f"the cases do not decide whether {what} is within its budget against the live version {found.live}",
            problems=open_questions,
            hint="give more cases with --case, or go on with --allow-inconclusive",
        )


def open_cases(drift: OutputDrift, budget: DriftBudget) -> frozenset[str]:
    """Return the cases that have to be asked again, since the drift alone does not tell a difference from noise."""
    places = []
    if budget.max_diff is not None and drift.over:
        places.append(drift.worst)
    if budget.max_churn is not None and drift.only_changed:
        places.append(drift.first_changed)
    if all(one.outcome != "inconclusive" for one in judge_outputs([drift], budget)):
        return frozenset()
    return frozenset(place[0] for place in places if place is not None)


def churn_interval(changed: int, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a share: that of Clopper and Pearson, which never promises too much."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if changed == 0 else _solve(lambda p: 1 - _below(changed - 1, rows, p), tail)
    high = 1.0 if changed == rows else _solve(lambda p: 1 - _below(changed, rows, p), 1 - tail)
    return low, high


def mcnemar(one: int, other: int) -> float:
    """Return the two-sided p-value of McNemar's exact test for the rows in which only one of two is right."""
    return min(1.0, 2 * _below(min(one, other), one + other, 0.5))


def _judge_difference(
    one: OutputDrift, limit: float, again: Sequence[OutputDrift], tests: int
) -> DriftVerdict:
    figure = f"the largest difference is {one.largest:.3g}, allowed are {limit:.3g}"
    noise = f"; live differs from itself by {one.noise_largest:.3g}"
    every_time = len(again) >= REPEATS and all(
        more.over and more.noise_largest <= limit for more in again
    )
    if one.largest <= limit and one.noise_largest <= limit:
        return _verdict(one, "max-diff", "passed", figure)
    if one.over and (every_time or _is_more(one.over, one.noise_over, tests)):
        return _verdict(one, "max-diff", "failed", figure + _shown(one.worst) + noise)
    return _verdict(one, "max-diff", "inconclusive", figure + noise)


def _judge_churn(
    one: OutputDrift, limit: float, again: Sequence[OutputDrift], tests: int
) -> DriftVerdict:
    low, high = churn_interval(one.changed, one.labelled)
    figure = (
        f"{one.changed} of {one.labelled} rows change, {one.changed / one.labelled:.2%} "
        f"(95 %: {low:.2%} to {high:.2%}), allowed are {limit:.2%}"
    )
    every_time = len(again) >= REPEATS and all(
        more.only_changed and not more.noise_changed for more in again
    )
    if one.changed == 0 and limit == 0:
        return _verdict(one, "max-churn", "passed", figure)
    if high <= limit:
        return _verdict(one, "max-churn", "passed", figure)
    if low > limit and (
        (every_time and not one.noise_changed) or _is_more(one.only_changed, one.only_noise, tests)
    ):
        return _verdict(one, "max-churn", "failed", figure + _shown(one.first_changed))
    if low > limit:
        why = f"; of live's own answers {one.noise_changed} change"
    else:
        why = f"; too few rows{_enough(one, limit)}"
    return _verdict(one, "max-churn", "inconclusive", figure + why)


def _verdict(
    one: OutputDrift,
    budget: Literal["max-diff", "max-churn"],
    outcome: Literal["passed", "failed", "inconclusive"],
    reason: str,
) -> DriftVerdict:
    return DriftVerdict(
        signature=one.signature,
        output=one.output,
        budget=budget,
        outcome=outcome,
        reason=reason,
    )


def _shown(place: tuple[str, int] | None) -> str:
    return "" if place is None else f" ({place[0]}, row {place[1]})"


def _enough(one: OutputDrift, limit: float) -> str:
    """Say how many rows would do if none changed, where none did."""
    if one.changed or not 0 < limit < 1:
        return ""
    rows = math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log1p(-limit))
    return f": {rows} decide if none changes"


def _is_more(candidate: int, noise: int, tests: int) -> bool:
    """Tell whether the candidate alone is more often at fault than live alone, by more than chance: a sign test."""
    allowed = (1 - CONFIDENCE) / 2 / max(1, tests)
    return candidate > noise and _below(noise, candidate + noise, 0.5) <= allowed


def _below(most: int, of: int, p: float) -> float:
    """Return the chance of at most `most` successes in `of` trials."""
    if most >= of or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    log_p, log_q = math.log(p), math.log1p(-p)
    terms = (
        math.lgamma(of + 1)
        - math.lgamma(k + 1)
        - math.lgamma(of - k + 1)
        + k * log_p
        + (of - k) * log_q
        for k in range(most + 1)
    )
    return min(1.0, math.fsum(math.exp(one) for one in terms))


def _solve(rising: Callable[[float], float], wanted: float) -> float:
    """Return where a function that rises from 0 to 1 has a value, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2
