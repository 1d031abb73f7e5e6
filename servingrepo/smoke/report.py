"""The report of a smoke test, and the rule by which it accepts a version."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import BadCase, SmokeFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "KEPT",
    "Api",
    "Latency",
    "Outcome",
    "SmokeReport",
    "Tally",
    "Verdict",
    "is_enough",
    "judge",
    "latency_of",
    "quantile",
]

Outcome = Literal["passed", "failed", "inconclusive"]
Api = Literal["Predict", "Classify", "Regress", "GetModelMetadata"]

MADE_UP = "made-up"
KEPT = 1000
"""The most verdicts of one outcome that a report has; of the others it has the number."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the requests to one signature, or of its comparison with the export.

    Attributes:
        signature: The signature's key.
        api: The call that decided.
        outcome: `failed` only if all data would fail, or if the data are the user's.
        reason: Why it did not pass, or what is odd although it passed; it may be empty.
        source: "made-up", or "case FILE#POSITION" with the case's name.
        requests: The number of requests that were sent; 0 if a case does not fit the model.
        milliseconds: The time until the answer of the last request.
    """

    signature: str
    api: Api
    outcome: Outcome
    reason: str = ""
    source: str = MADE_UP
    requests: int = 1
    milliseconds: float = 0.0

    def __str__(self) -> str:
        text = f"{self.signature}: {self.outcome} ({self.api}, {self.source})"
        return f"{text}: {self.reason}" if self.reason else text


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """The milliseconds that answers took: at the median and at the 99th percent of so many requests.

    The first answer of each signature is not among them: it compiles and allocates.
    """

    requests: int
    p50_ms: float
    p99_ms: float


class SmokeReport(msgspec.Struct, frozen=True, kw_only=True):
    """All verdicts on one version at one endpoint. `signatures` are those that need a verdict.

    Of many cases, `verdicts` are the first thousand of each outcome, and the first that passed of each signature.
    `left_out` has the numbers of the others.
    """

    model: str
    version: int
    endpoint: str
    signatures: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    left_out: dict[str, int] = {}
    latency: Latency | None = None

    def count(self, outcome: Outcome) -> int:
        """Return the number of all verdicts with this outcome."""
        return len(self.of(outcome)) + self.left_out.get(outcome, 0)

    def of(self, outcome: Outcome) -> tuple[Verdict, ...]:
        """Return the verdicts with this outcome."""
        return tuple(one for one in self.verdicts if one.outcome == outcome)

    @property
    def passed(self) -> tuple[Verdict, ...]:
        """The verdicts of requests that got a right answer."""
        return self.of("passed")

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The verdicts that speak against the version."""
        return self.of("failed")

    @property
    def inconclusive(self) -> tuple[Verdict, ...]:
        """The verdicts that prove nothing."""
        return self.of("inconclusive")

    @property
    def unproven(self) -> tuple[str, ...]:
        """The signatures without a passed request."""
        proven = {one.signature for one in self.passed}
        return tuple(key for key in self.signatures if key not in proven)


class Tally:
    """Verdicts and times of a smoke test as they come: many cases need little memory."""

    def __init__(self) -> None:
        self._verdicts: list[Verdict] = []
        self._counts: dict[Outcome, int] = {"passed": 0, "failed": 0, "inconclusive": 0}
        self._proven: set[str] = set()
        self._asked: set[str] = set()
        self._times = array("d")

    def add(self, verdict: Verdict) -> None:
        """Take a verdict."""
        self._counts[verdict.outcome] += 1
        new = verdict.outcome == "passed" and verdict.signature not in self._proven
        if new:
            self._proven.add(verdict.signature)
        if new or self._counts[verdict.outcome] <= KEPT:
            self._verdicts.append(verdict)

    def time(self, signature: str, milliseconds: float) -> bool:
        """Take the time of an answer to a case, and tell whether it counts: the first of a signature does not."""
        if signature not in self._asked:
            self._asked.add(signature)
            return False
        self._times.append(milliseconds)
        return True

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The verdicts so far that speak against the version."""
        return tuple(one for one in self._verdicts if one.outcome == "failed")

    def report(
        self, *, model: str, version: int, endpoint: str, signatures: tuple[str, ...]
    ) -> SmokeReport:
        """Return the report of all that was taken."""
        kept = {
            outcome: sum(one.outcome == outcome for one in self._verdicts)
            for outcome in self._counts
        }
        return SmokeReport(
            model=model,
            version=version,
            endpoint=endpoint,
            signatures=signatures,
            verdicts=tuple(self._verdicts),
            left_out={
                outcome: count - kept[outcome]
                for outcome, count in self._counts.items()
                if count > kept[outcome]
            },
            latency=latency_of(self._times),
        )


def latency_of(times: Iterable[float]) -> Latency | None:
    """Return the latency of answers that took so many milliseconds; None if there were none."""
    ordered = sorted(times)
    if not ordered:
        return None
    return Latency(
        requests=len(ordered), p50_ms=quantile(ordered, 0.5), p99_ms=quantile(ordered, 0.99)
    )


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the value that this part of ordered values does not exceed; it is one of them."""
    place = max(0, min(len(ordered) - 1, -int(-part * len(ordered) // 1) - 1))
    return ordered[place]


def is_enough(report: SmokeReport, *, strict: bool) -> bool:
    """Tell whether `judge` accepts this report."""
    try:
        judge(report, strict=strict)
    except (SmokeFailed, BadCase):
        return False
    return True


def judge(report: SmokeReport, *, strict: bool) -> None:
    """Accept a version, or list all that speaks against it.

    A version needs at least one passed verdict and no failed one, and every case of the user's must have its answer.
    With `strict`, every signature must be proven, and no verdict may be inconclusive.

    Raises:
        SmokeFailed: The version does not have these verdicts.
        BadCase: Nothing speaks against it but cases that do not fit the model.
    """
    what = f"{report.model} version {report.version} at {report.endpoint}"
    failed = [*map(str, report.failed), *_uncounted(report, "failed")]
    undecided = [one for one in report.inconclusive if strict or one.source != MADE_UP]
    problems = [*failed, *map(str, undecided)]
    if strict or undecided:
        problems += _uncounted(report, "inconclusive")
    if strict:
        mentioned = {one.signature for one in (*report.failed, *report.inconclusive)}
        problems += [
            f"{key}: not proven: no request was sent"
            for key in report.unproven
            if key not in mentioned
        ]
    if failed and all(not one.requests for one in report.failed) and len(failed) == len(problems):
        raise BadCase(
            f"{len(failed)} smoke cases do not fit {report.model} version {report.version}",
            hint="compare the cases with the signatures of the export; all others were sent",
            problems=problems,
        )
    if failed:
        raise SmokeFailed(
            f"the smoke test of {what} failed", hint=_way_out(report), problems=problems
        )
    if any(one.source != MADE_UP for one in undecided):
        raise SmokeFailed(
            f"the smoke test of {what} did not end: not every case was answered",
            hint="give it more --timeout; if the server hangs, see its log",
            problems=problems,
        )
    if problems:
        raise SmokeFailed(
            f"the smoke test of {what} did not prove every signature, which --strict asks for",
            hint="give data that proves them with --case FILE, or leave --strict out",
            problems=problems,
        )
    if not report.passed:
        raise SmokeFailed(
            f"the smoke test of {what} proved nothing: no request got a right answer",
            hint="give real data with --case FILE",
            problems=[str(one) for one in report.inconclusive],
        )


def _uncounted(report: SmokeReport, outcome: Outcome) -> list[str]:
    """Return a line on the verdicts that the report only counts."""
    more = report.left_out.get(outcome, 0)
    return [f"and {more} more {outcome}"] if more else []


def _way_out(report: SmokeReport) -> str:
    """Say what to do about failed requests."""
    if any("NHWC" in one.reason for one in report.failed):
        return (
            "the model wants its channels first (NCHW), which TensorFlow runs on GPUs only: smoke-test it on a "
            "machine with a GPU (--engine docker --gpus all), or export it with channels last (NHWC)"
        )
    return "repair the export; if made-up data is at fault, give real data with --case FILE"
