"""The report of a smoke test, and the rule by which it accepts a version."""

from __future__ import annotations

from typing import Literal

import msgspec

from servingrepo.errors import SmokeFailed

__all__ = ["Api", "Outcome", "SmokeReport", "Verdict", "is_enough", "judge"]

Outcome = Literal["passed", "failed", "inconclusive"]
Api = Literal["Predict", "Classify", "Regress", "GetModelMetadata"]

MADE_UP = "made-up"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the requests to one signature, or of its comparison with the export.

    Attributes:
        signature: The signature's key.
        api: The call that decided.
        outcome: `failed` only if all data would fail, or if the data are the user's.
        reason: Why it did not pass, or what is odd although it passed; it may be empty.
        source: "made-up", or "case FILE#POSITION".
        requests: The number of requests that were sent.
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


class SmokeReport(msgspec.Struct, frozen=True, kw_only=True):
    """All verdicts on one version at one endpoint. `signatures` are those that need a verdict."""

    model: str
    version: int
    endpoint: str
    signatures: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

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


def is_enough(report: SmokeReport, *, strict: bool) -> bool:
    """Tell whether `judge` accepts this report."""
    try:
        judge(report, strict=strict)
    except SmokeFailed:
        return False
    return True


def judge(report: SmokeReport, *, strict: bool) -> None:
    """Accept a version, or list all that speaks against it.

    A version needs at least one passed verdict and no failed one. With `strict`, every signature must be proven, and
    no verdict may be inconclusive.

    Raises:
        SmokeFailed: The version does not have these verdicts.
    """
    what = f"{report.model} version {report.version} at {report.endpoint}"
    problems = [str(one) for one in report.failed]
    if strict:
        problems += [str(one) for one in report.inconclusive]
        mentioned = {one.signature for one in (*report.failed, *report.inconclusive)}
        problems += [
            f"{key}: not proven: no request was sent"
            for key in report.unproven
            if key not in mentioned
        ]
    if problems and not report.failed:
        raise SmokeFailed(
            f"the smoke test of {what} did not prove every signature, which --strict asks for",
            hint="give data that proves them with --case FILE, or leave --strict out",
            problems=problems,
        )
    if problems:
        raise SmokeFailed(
            f"the smoke test of {what} failed", hint=_way_out(report), problems=problems
        )
    if not report.passed:
        raise SmokeFailed(
            f"the smoke test of {what} proved nothing: no request got a right answer",
            hint="give real data with --case FILE",
            problems=[str(one) for one in report.inconclusive],
        )


def _way_out(report: SmokeReport) -> str:
    """Say what to do about failed requests."""
    if any("NHWC" in one.reason for one in report.failed):
        return (
            "the model wants its channels first (NCHW), which TensorFlow runs on GPUs only: smoke-test it on a "
            "machine with a GPU (--engine docker --gpus all), or export it with channels last (NHWC)"
        )
    return "repair the export; if made-up data is at fault, give real data with --case FILE"
