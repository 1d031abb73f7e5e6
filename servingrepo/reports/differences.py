"""The report of a comparison of two versions or exports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import servingrepo
from servingrepo.reports.proofs import (
    change_section,
    drift_checks,
    drift_section,
    signature_section,
)
from servingrepo.reports.values import Check, Outcome, Report
from servingrepo.repository.records import without_secrets
from servingrepo.texts import plural, some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.smoke.drift import Drift
    from servingrepo.verbs.diff import Diff

__all__ = ["diff_report"]


def diff_report(found: Diff, *, created: str) -> Report:
    """Report on the differences of two versions or exports.

    Args:
        found: What `diff` returned.
        created: When the report is made.
    """
    found = without_secrets(found)
    drift = found.drift
    checks = [
        Check(
            group="clients",
            name=one.message,
            outcome="failed" if one.breaking else "passed",
            reason="breaks clients" if one.breaking else "",
        )
        for one in found.changes
    ]
    outcome: Outcome = "failed" if found.verdict == "breaking" else "passed"
    remark = {
        "same": f"Nothing changes for clients of {found.old}.",
        "compatible": f"Clients of {found.old} can go on: all changes are compatible.",
        "breaking": f"Clients of {found.old} break.",
    }[found.verdict]
    verdict = f"{remark} {plural(len(found.changes), 'change', 'changes')} of signatures."
    if drift is not None:
        checks += drift_checks(drift)
        if drift.failed:
            outcome = "failed"
        elif (drift.inconclusive or drift.why) and outcome == "passed":
            outcome = "inconclusive"
        verdict += f" {_drift(drift)}"
    old, new = found.signatures
    sections = [
        change_section(found.changes, remark),
        signature_section((found.old, old), (found.new, new)),
        *([drift_section(drift, found.old)] if drift is not None else ()),
    ]
    return Report(
        kind="Comparison",
        subject=f"{found.old} > {found.new}",
        outcome=outcome,
        verdict=verdict,
        facts=tuple(_facts(found)),
        sections=tuple(one for one in sections if not one.empty),
        checks=tuple(checks),
        created=created,
        program=f"servingrepo {servingrepo.__version__}",
    )


def _drift(drift: Drift) -> str:
    if drift.why:
        return f"Answers were not compared: {drift.why}."
    if not drift.verdicts:
        return "No budget judges the difference of the answers."
    return (
        f"Of {plural(len(drift.verdicts), 'budget', 'budgets')} {len(drift.failed)} failed, and "
        f"{len(drift.inconclusive)} are inconclusive."
    )


def _facts(found: Diff) -> Iterator[tuple[str, str]]:
    before, after = (one or "unknown" for one in found.tensorflow)
    yield "For clients", found.verdict
    yield (
        "Written by",
        f"TensorFlow {before} → {after}" if before != after else f"TensorFlow {after}",
    )
    if found.new_ops is None:
        yield "Operations", "not compared: a record does not have them"
    else:
        yield (
            "Operations",
            f"new: {some(found.new_ops, most=20)}" if found.new_ops else "none is new",
        )
    if found.new_effects:
        yield "Reaches out", f"{some(found.new_effects, most=20)}: promote needs --allow-op"
