"""What is enough for a promotion, and what for a strict one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import SmokeFailed
from servingrepo.smoke.report import SmokeReport, Verdict, judge

if TYPE_CHECKING:
    from servingrepo.smoke.report import Outcome


def report(*outcomes: Outcome, signatures: int | None = None) -> SmokeReport:
    verdicts = tuple(
        Verdict(signature=f"s{place}", api="Predict", outcome=one, reason=f"reason {place}")
        for place, one in enumerate(outcomes)
    )
    count = len(outcomes) if signatures is None else signatures
    return SmokeReport(
        model="m",
        version=3,
        endpoint="localhost:1",
        signatures=tuple(f"s{place}" for place in range(count)),
        verdicts=verdicts,
    )


@pytest.mark.parametrize("strict", [False, True])
def test_judge_of_all_passed_accepts(*, strict: bool) -> None:
    judge(report("passed", "passed"), strict=strict)


def test_judge_of_passed_and_inconclusive_accepts_unless_strict() -> None:
    mixed = report("passed", "inconclusive")
    judge(mixed, strict=False)
    with pytest.raises(SmokeFailed) as caught:
        judge(mixed, strict=True)
    assert caught.value.problems == ("s1: inconclusive (Predict, made-up): reason 1",)
    assert mixed.unproven == ("s1",)


@pytest.mark.parametrize("strict", [False, True])
def test_judge_of_one_failed_among_many_refuses_with_all_that_failed(*, strict: bool) -> None:
    with pytest.raises(SmokeFailed, match="m version 3 at localhost:1 failed") as caught:
        judge(report("passed", "failed", "failed"), strict=strict)
    assert [text.split(":")[0] for text in caught.value.problems] == ["s1", "s2"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("outcomes", [(), ("inconclusive", "inconclusive")])
def test_judge_of_nothing_proven_refuses(outcomes: tuple[Outcome, ...], *, strict: bool) -> None:
    with pytest.raises(SmokeFailed):
        judge(report(*outcomes), strict=strict)


def test_judge_strictly_of_a_signature_without_a_verdict_refuses() -> None:
    partial = report("passed", signatures=2)
    judge(partial, strict=False)
    with pytest.raises(SmokeFailed) as caught:
        judge(partial, strict=True)
    assert caught.value.problems == ("s1: not proven: no request was sent",)


def test_smoke_report_survives_json() -> None:
    mixed = report("passed", "failed")
    assert msgspec.json.decode(msgspec.json.encode(mixed), type=SmokeReport) == mixed
