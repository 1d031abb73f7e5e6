"""Reports of a promotion and of a smoke test, of those too that ended with an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

import servingrepo
from servingrepo.masking import mask_text
from servingrepo.reports.proofs import (
    case_checks,
    drift_checks,
    drift_section,
    gate_checks,
    gate_section,
    guard_checks,
    guard_section,
    latency_section,
    origin_section,
    proof_facts,
    signature_section,
)
from servingrepo.reports.values import Check, Outcome, Report, Section, Table
from servingrepo.repository.records import without_secrets
from servingrepo.texts import plural, sized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.errors import ServingRepoError
    from servingrepo.repository.records import Proof, VersionRecord
    from servingrepo.verbs.values import Promotion

__all__ = ["failure_report", "promotion_report", "smoke_report"]


def promotion_report(
    done: Promotion,
    *,
    record: VersionRecord | None,
    created: str,
) -> Report:
    """Report on a promotion that succeeded, or on a dry run.

    Args:
        done: What `promote` returned.
        record: The record of the version; None in a dry run, or if it cannot be read.
        created: When the report is made.
    """
    done = without_secrets(done)
    record = without_secrets(record) if record is not None else None
    known = record.proofs[-1] if record is not None and record.proofs else None
    proof = done.proof or known
    drift = proof.drift if proof is not None else None
    checks = [
        *(case_checks(proof) if proof is not None else ()),
        *(drift_checks(drift) if drift is not None else ()),
        *gate_checks(done.gates),
        *(guard_checks(done.guard) if done.guard is not None else ()),
    ]
    outcome, verdict = _verdict(done, proof, checks)
    sections = [
        *([guard_section(done.guard)] if done.guard is not None else ()),
        *([signature_section(("", record.signatures))] if record is not None else ()),
        *([drift_section(drift, f"{done.model}@{drift.live}")] if drift is not None else ()),
        *([latency_section(proof)] if proof is not None else ()),
    ]
    background = [
        gate_section(done.gates, record.measured if record is not None else ()),
        _servers(done),
        *([origin_section(record)] if record is not None else ()),
    ]
    return Report(
        kind="Dry run of a promotion" if done.dry_run else "Promotion",
        subject=f"{done.model}@{done.version}",
        outcome=outcome,
        verdict=verdict,
        problems=done.unproven,
        facts=tuple(_facts(done, proof)),
        sections=tuple(one for one in sections if not one.empty),
        background=tuple(one for one in background if not one.empty),
        checks=tuple(checks),
        checks_left=proof.report.left_out if proof is not None else {},
        created=created,
        program=f"servingrepo {servingrepo.__version__}",
    )


def _verdict(done: Promotion, proof: Proof | None, checks: list[Check]) -> tuple[Outcome, str]:
    name = f"{done.model}@{done.version}"
    if done.dry_run:
        what = f"{name} has this content already" if done.same_as else f"would publish {name}"
        return "not checked", f"Nothing was changed: {what}. A dry run runs no smoke test."
    is_new = done.same_as is None
    what = f"{name} is published" if is_new else f"{name} has this content already"
    served = "served" if done.version in done.after else "not served"
    said = f"{what} and {served}" if is_new else f"{what}, and is {served}"
    if proof is None:
        return "not checked", f"{said}. No smoke test ran: that is not checked, and not ok."
    doubtful = sum(
        one.outcome in {"inconclusive", "failed"}
        or (one.group == "drift" and one.outcome == "not checked")
        for one in checks
    )
    doubtful += sum(proof.report.left_out.get(one, 0) for one in ("inconclusive", "failed"))
    if doubtful:
        return "inconclusive", f"{said}. {plural(doubtful, 'check', 'checks')} proved nothing."
    if done.unproven:
        return "inconclusive", f"{said}, with parts that nothing has proven."
    return "passed", f"{said}, proven by {plural(proof.report.count('passed'), 'check', 'checks')}."


def _facts(done: Promotion, proof: Proof | None) -> Iterator[tuple[str, str]]:
    before, after = (", ".join(map(str, one)) or "nothing" for one in (done.before, done.after))
    would = "Would serve" if done.dry_run else "Served"
    yield would, f"{before} → {after}" if done.before != done.after else f"{after}, as before"
    yield "Run", done.run
    yield "Size", f"{sized(done.size)} in {plural(done.files, 'file', 'files')}"
    if proof is not None:
        yield from proof_facts(proof)
    if done.held is not None:
        yield "Held", done.held or "no reason given"
    if done.overtaken:
        yield "Overtaken", done.overtaken
    for note in done.notes:
        yield "Note", note
    if done.prune_failed:
        yield "Not pruned", done.prune_failed


def _servers(done: Promotion) -> Section:
    tables = []
    if done.endpoints:
        tables.append(
            Table(
                heads=("Endpoint", "Outcome"),
                rows=tuple((str(one.endpoint), str(one.outcome)) for one in done.endpoints),
            )
        )
    if done.stages:
        tables.append(
            Table(
                title="Stages",
                heads=("Stage", "Verdict"),
                rows=tuple(
                    (str(number), str(one)) for number, one in enumerate(done.stages, start=1)
                ),
            )
        )
    return Section(title="Live servers", tables=tuple(tables))


def smoke_report(
    proof: Proof,
    *,
    subject: str,
    record: VersionRecord | None,
    error: ServingRepoError | None = None,
    created: str,
) -> Report:
    """Report on a smoke test.

    Args:
        proof: What `smoke` returned.
        subject: The version or path that was tested.
        record: The record of the version, if it is a published one.
        error: Why the proof is not enough, if it is not.
        created: When the report is made.
    """
    proof = without_secrets(proof)
    record = without_secrets(record) if record is not None else None
    report, drift = proof.report, proof.drift
    checks = [
        *case_checks(proof),
        *(drift_checks(drift) if drift is not None else ()),
    ]
    doubtful = report.count("inconclusive") + len(report.unproven)
    outcome: Outcome = "inconclusive" if doubtful else "passed"
    if report.failed:
        outcome, verdict = "failed", f"{plural(report.count('failed'), 'check', 'checks')} failed."
    elif doubtful:
        verdict = (
            f"Nothing speaks against it, and {plural(doubtful, 'check', 'checks')} proved nothing."
        )
    else:
        verdict = f"Proven by {plural(report.count('passed'), 'check', 'checks')}."
    sections = [
        *([signature_section(("", record.signatures))] if record is not None else ()),
        *([drift_section(drift, f"version {drift.live}")] if drift is not None else ()),
        latency_section(proof),
    ]
    found = Report(
        kind="Smoke test",
        subject=mask_text(subject),
        outcome=outcome,
        verdict=verdict,
        facts=tuple(proof_facts(proof)),
        sections=tuple(one for one in sections if not one.empty),
        background=(origin_section(record),) if record is not None else (),
        checks=tuple(checks),
        checks_left=report.left_out,
        created=created,
        program=f"servingrepo {servingrepo.__version__}",
    )
    return found if error is None else _failed(found, error)


def failure_report(
    error: ServingRepoError, *, kind: str, subject: str, proof: Proof | None, created: str
) -> Report:
    """Report on a command that ended with an error; with the proof that was not enough, if there is one."""
    if proof is None:
        empty = Report(
            kind=kind,
            subject=mask_text(subject),
            outcome="failed",
            verdict="",
            created=created,
            program=f"servingrepo {servingrepo.__version__}",
        )
        return _failed(empty, error)
    found = smoke_report(proof, subject=subject, record=None, created=created)
    return _failed(msgspec.structs.replace(found, kind=kind), error)


def _failed(report: Report, error: ServingRepoError) -> Report:
    """Return a report whose verdict is an error."""
    return msgspec.structs.replace(
        report,
        outcome="failed",
        verdict=mask_text(error.message),
        problems=tuple(map(mask_text, error.problems)),
        hint=mask_text(error.hint or ""),
        facts=(*report.facts, ("Error", f"{error.slug} (exit code {error.exit_code})")),
        log=tuple(mask_text(error.log).splitlines()) if error.log else (),
    )
