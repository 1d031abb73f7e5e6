"""The comparison of a candidate with the live version: both answer the same cases, in one server, in turns.

Each case goes to live, to the candidate, and to live again. Outputs that both have are compared, as `drift` says. A
case that one of them does not take or does not answer is named and not compared.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from servingrepo.smoke.differences import measure, measure_accuracy
from servingrepo.smoke.drift import (
    REPEATS,
    Accuracy,
    Drift,
    DriftBudget,
    OutputDrift,
    judge_outputs,
    merge,
    merge_accuracy,
    open_cases,
)
from servingrepo.smoke.fitting import Misfit, fit_case
from servingrepo.smoke.report import latency_of
from servingrepo.smoke.requests import send_case

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.smoke.cases import SmokeCase
    from servingrepo.smoke.requests import Target
    from servingrepo.smoke.tensors import Tensor

__all__ = ["Side", "compare"]

_NAMED = 20
"""The most cases that are named as not compared; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    signature: str
    outputs: dict[str, Tensor]
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two versions: where it answers, and its export."""

    target: Target
    inspection: Inspection

    def answer(self, case: SmokeCase) -> _Answer | str:
        """Send a case; return the answer, or why there is none."""
        try:
            fitted = fit_case(case, self.inspection)
        except Misfit as misfit:
            return f"it does not fit: {misfit}"
        if self.target.deadline.passed:
            return "no time was left"
        result = send_case(self.target, case, fitted)
        if not result.outputs:
            return f"it has no answer: {result.reason or result.text}"
        return _Answer(
            signature=fitted.signature.key,
            outputs=result.outputs,
            milliseconds=result.milliseconds,
        )


def compare(
    live: Side, candidate: Side, cases: Iterable[SmokeCase], *, budget: DriftBudget
) -> Drift:
    """Send the cases to both versions and measure how their answers differ.

    Raises:
        EndpointUnreachable: The server is gone.
    """
    found = _Found(live, candidate, budget)
    for case in cases:
        if case.expect is None or case.expect.error is None:
            found.add(case)
    outputs = tuple(found.drifts.values())
    repeats = [found.repeated(one, cases) for one in outputs]
    return Drift(
        live=live.target.version,
        cases=found.compared,
        left=tuple(found.left),
        left_count=found.left_count,
        outputs=outputs,
        accuracy=tuple(found.accuracies.values()),
        live_latency=latency_of(found.live_times),
        latency=latency_of(found.times),
        verdicts=judge_outputs(outputs, budget, repeats=repeats),
        one_sided=tuple(_one_sided(live.inspection, candidate.inspection)),
        notes=tuple(_notes(live, candidate)),
        why="" if found.compared else "no case was answered by both",
    )


class _Found:
    """What the cases so far have shown."""

    def __init__(self, live: Side, candidate: Side, budget: DriftBudget) -> None:
        self.live = live
        self.candidate = candidate
        self.budget = budget
        self.drifts: dict[tuple[str, str], OutputDrift] = {}
        self.accuracies: dict[tuple[str, str], Accuracy] = {}
        self.live_times = array("d")
        self.times = array("d")
        self.warm: set[str] = set()
        self.compared = 0
        self.left: list[str] = []
        self.left_count = 0

    def add(self, case: SmokeCase) -> None:
        """Send a case to both and add what differs."""
        answers = self._ask(case)
        if isinstance(answers, str):
            self._leave(f"{case.source}: {answers}")
            return
        self.compared += 1
        for found in self._measured(case, *answers):
            key = found.signature, found.output
            self.drifts[key] = merge(self.drifts[key], found) if key in self.drifts else found
        self._add_accuracy(case, answers[0], answers[2])
        if answers[0].signature in self.warm:
            self.live_times.append(answers[0].milliseconds)
            self.times.append(answers[2].milliseconds)
        self.warm.add(answers[0].signature)  # the first answer may compile

    def repeated(self, drift: OutputDrift, cases: Iterable[SmokeCase]) -> tuple[OutputDrift, ...]:
        """Ask again for the cases that leave a doubt about an output; return its drift in each round."""
        names = open_cases(drift, self.budget)
        if not names:
            return ()
        doubtful = list(islice((one for one in cases if one.source in names), len(names)))
        rounds = []
        for _ in range(REPEATS):
            drifts = [
                found
                for case in doubtful
                if not isinstance(answers := self._ask(case), str)
                for found in self._measured(case, *answers)
                if (found.signature, found.output) == (drift.signature, drift.output)
            ]
            if len(drifts) < len(doubtful):
                return ()
            rounds.append(_sum(drifts))
        return tuple(rounds)

    def _ask(self, case: SmokeCase) -> tuple[_Answer, _Answer, _Answer] | str:
        """Return live's answer, live's second one, and the candidate's; or why one is missing."""
        first = self.live.answer(case)
        if isinstance(first, str):
            return f"live: {first}"
        other = self.candidate.answer(case)
        if isinstance(other, str):
            return f"candidate: {other}"
        again = self.live.answer(case)
        if isinstance(again, str):
            return f"live, asked again: {again}"
        return first, again, other

    def _measured(
        self, case: SmokeCase, live: _Answer, again: _Answer, candidate: _Answer
    ) -> Iterator[OutputDrift]:
        three = live.outputs, again.outputs, candidate.outputs
        for alias in sorted(set.intersection(*map(set, three))):
            first, second, other = (outputs[alias] for outputs in three)
            if first.dtype == other.dtype:
                yield measure(
                    first,
                    second,
                    other,
                    signature=live.signature,
                    output=alias,
                    case=case.source,
                    budget=self.budget,
                )

    def _add_accuracy(self, case: SmokeCase, live: _Answer, candidate: _Answer) -> None:
        for alias, labels in case.labels.items():
            if alias not in live.outputs or alias not in candidate.outputs:
                self._leave(f"{case.source}: labels: there is no output {alias} in both")
                continue
            try:
                found = measure_accuracy(
                    live.outputs[alias],
                    candidate.outputs[alias],
                    labels,
                    signature=live.signature,
                    output=alias,
                )
            except ValueError as error:
                self._leave(f"{case.source}: labels of {alias}: {error}")
                continue
            key = live.signature, alias
            known = self.accuracies.get(key)
            self.accuracies[key] = merge_accuracy(known, found) if known else found

    def _leave(self, line: str) -> None:
        self.left_count += 1
        if len(self.left) < _NAMED:
            self.left.append(line)


def _sum(drifts: list[OutputDrift]) -> OutputDrift:
    total = drifts[0]
    for one in drifts[1:]:
        total = merge(total, one)
    return total


def _one_sided(live: Inspection, candidate: Inspection) -> Iterator[str]:
    """Yield the signatures, inputs and outputs that only one of both has, or that have another dtype there."""
    ours = {one.key: one for one in live.signatures}
    theirs = {one.key: one for one in candidate.signatures}
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in ours or key not in theirs:
            yield f"signature {key}: only {'the candidate' if key in theirs else 'live'} has it"
            continue
        for kind in ("inputs", "outputs"):
            before, after = (
                {spec.alias: spec.dtype for spec in getattr(side[key], kind)}
                for side in (ours, theirs)
            )
            for alias in sorted(before.keys() | after.keys()):
                what = f"{key}: {kind.removesuffix('s')} {alias}"
                if alias not in before or alias not in after:
                    yield f"{what}: only {'the candidate' if alias in after else 'live'} has it"
                elif before[alias] != after[alias]:
                    yield f"{what}: {before[alias]} in live, {after[alias]} in the candidate"


def _notes(live: Side, candidate: Side) -> Iterator[str]:
    for name, side in (("live", live), ("the candidate", candidate)):
        demands: Any = side.inspection.demands
        if demands is not None and demands.state:
            yield (
                f"{name} keeps state: a request changes it ({', '.join(demands.state)}), so an answer depends on "
                "the requests before it"
            )
