"""A report as JUnit's XML, which CI systems show: a suite for each kind of check, and one for the verdict.

There is no standard of it. What is written is what Jenkins' schema, GitLab and GitHub's reporters have in common:
`failure` for what failed, `skipped` for what is inconclusive or was not checked, so that it is never shown as passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.reports.templates import fill
from servingrepo.reports.values import Check, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.reports.values import Report

__all__ = ["as_junit"]


def as_junit(report: Report) -> bytes:
    """Return a report as JUnit's XML."""
    report = plain(report)
    verdict = Check(
        group="verdict",
        name=report.kind,
        outcome=report.outcome or "not checked",
        reason=report.verdict,
    )
    left = [
        Check(
            group="left out",
            name=f"{count} more {outcome}",
            outcome="failed" if outcome == "failed" else "not checked",
            reason="the report has the first of them only",
        )
        for outcome, count in report.checks_left.items()
    ]
    suites: dict[str, list[Check]] = {}
    for one in (verdict, *report.checks, *left):
        suites.setdefault(one.group, []).append(one)
    text = fill(
        "junit.xml.jinja",
        report=report,
        suites=[(group, _counts(checks), checks) for group, checks in suites.items()],
        total=_counts([one for checks in suites.values() for one in checks]),
    )
    return text.encode("utf-8")


def _counts(checks: Sequence[Check]) -> dict[str, str]:
    skipped = sum(one.outcome in {"inconclusive", "not checked"} for one in checks)
    return {
        "tests": str(len(checks)),
        "failures": str(sum(one.outcome == "failed" for one in checks)),
        "skipped": str(skipped),
        "time": f"{sum(one.milliseconds for one in checks) / 1000:.6f}",
    }
