"""Budgets: how long the answers to the cases of a document may take.

The first cases of a document are sent again until there are enough answers to judge its budget by.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import EndpointUnreachable
from servingrepo.smoke.report import Outcome, Verdict, quantile
from servingrepo.smoke.requests import send_case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.smoke.cases import Budget, SmokeCase
    from servingrepo.smoke.fitting import Fitted
    from servingrepo.smoke.requests import Target

__all__ = ["Budgets"]

ENOUGH = 100
"""The least answers for the 99th percent: of fewer, it would be the slowest one."""
ENOUGH_FOR_MEDIAN = 20
_SENT_AGAIN = 20
"""The most cases of a document that are sent again."""
_KEPT_BYTES = 64 << 20
"""The most bytes of all requests that are kept to be sent again, beside the first one of each document."""


class Budgets:
    """The times of the answers to cases that have a budget, by file."""

    def __init__(self) -> None:
        self._budgets: dict[str, Budget] = {}
        self._times: dict[str, array[float]] = {}
        self._again: dict[str, list[tuple[SmokeCase, Fitted]]] = {}
        self._size = 0

    def keep(self, case: SmokeCase, fitted: Fitted) -> None:
        """Keep a case that was answered, to be sent again."""
        if case.budget is None:
            return
        self._budgets[case.budget.document] = case.budget
        again = self._again.setdefault(case.budget.document, [])
        if len(again) >= _SENT_AGAIN:
            return
        self._size += sum(one.ByteSize() for one in (*fitted.inputs.values(), *fitted.examples))
        if not again or self._size <= _KEPT_BYTES:
            # Of the case only its conditions and its name are needed: the data are in the request.
            again.append((msgspec.structs.replace(case, data=None), fitted))

    def add(self, case: SmokeCase, milliseconds: float) -> None:
        """Take the time of an answer."""
        if case.budget is not None:
            times = self._times.setdefault(case.budget.document, array("d"))
            times.append(milliseconds)

    def verdicts(self, target: Target) -> Iterator[Verdict]:
        """Send cases again where there are too few answers, and yield a verdict for each document with a budget."""
        for file, budget in self._budgets.items():
            enough = ENOUGH if budget.p99_ms is not None else ENOUGH_FOR_MEDIAN
            times = self._times.get(file, array("d"))
            problem = _fill(target, self._again[file], times, enough)
            if len(times) < enough:
                why = f"there are {len(times)} answers, and {enough} are needed: {problem}"
                yield _verdict(file, "inconclusive", why, len(times), 0.0)
                continue
            ordered = sorted(times)
            found = (
                ("median", budget.p50_ms, quantile(ordered, 0.5)),
                ("99th percent", budget.p99_ms, quantile(ordered, 0.99)),
            )
            outcome: Outcome = (
                "failed"
                if any(most is not None and took > most for _, most, took in found)
                else "passed"
            )
            reason = "; ".join(
                f"the {what} of {len(ordered)} answers is {took:.3g} ms, the budget {most:g} ms"
                for what, most, took in found
                if most is not None
            )
            yield _verdict(file, outcome, reason, len(times), found[1][2])


def _fill(
    target: Target, again: list[tuple[SmokeCase, Fitted]], times: array[float], enough: int
) -> str:
    """Send cases again until there are enough answers. Return why it ended, if it did before."""
    for number in range(enough):
        if len(times) >= enough:
            return ""
        if target.deadline.passed:
            return "no time was left"
        case, fitted = again[number % len(again)]
        try:
            result = send_case(target, case, fitted)
        except EndpointUnreachable as gone:
            return gone.message
        if not result.outputs:
            return f"{case.source}, sent again: {result.reason}"
        times.append(result.milliseconds)
    return ""


def _verdict(
    file: str, outcome: Outcome, reason: str, requests: int, milliseconds: float
) -> Verdict:
    return Verdict(
        signature="*",
        api="Predict",  # records know no other calls; an earlier release must be able to read them
        outcome=outcome,
        reason=reason,
        source=f"case {file}",
        requests=requests,
        milliseconds=milliseconds,
    )
