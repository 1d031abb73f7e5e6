"""Parts that several reports have: proofs, drift, gates, signatures and origin, as sections and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.reports.values import (
    Chart,
    Check,
    Outcome,
    Section,
    Series,
    Table,
    figure,
    finite,
)
from servingrepo.savedmodel.compatibility import say_spec
from servingrepo.smoke.drift import churn_interval
from servingrepo.smoke.report import quantile
from servingrepo.texts import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.repository.records import Guard, Proof, VersionRecord
    from servingrepo.runs.measurements import GateVerdict, Number
    from servingrepo.runs.origin import Origin
    from servingrepo.savedmodel.compatibility import Change
    from servingrepo.savedmodel.values import Signature, TensorSpec
    from servingrepo.smoke.drift import Drift, OutputDrift
    from servingrepo.smoke.report import Verdict

__all__ = [
    "case_checks",
    "change_section",
    "drift_checks",
    "drift_section",
    "gate_checks",
    "gate_section",
    "guard_checks",
    "guard_section",
    "latency_section",
    "origin_section",
    "proof_facts",
    "signature_section",
]

CASES = "smoke test"
"""The group of the checks that are cases of a smoke test."""

_BINS = 24
_GATES: dict[str, Outcome] = {
    "passed": "passed",
    "failed": "failed",
    "missing": "failed",
    "not compared": "not checked",
}


def proof_facts(proof: Proof) -> Iterator[tuple[str, str]]:
    """Yield the facts of a proof: where it ran, and how many verdicts there were."""
    yield "Server", f"{proof.engine} ({proof.server})"
    if proof.image or proof.declared:
        yield "Image", proof.image or f"{proof.declared}, as the caller said"
    report = proof.report
    counts = [
        f"{count} {outcome}"
        for outcome in ("passed", "failed", "inconclusive")
        if (count := report.count(outcome))
    ]
    yield "Checks", ", ".join(counts) or "none"
    if report.latency is not None:
        found = report.latency
        figures = f"p50 {found.p50_ms:.3g} ms, p99 {found.p99_ms:.3g} ms"
        yield "Latency", f"{figures} of {plural(found.requests, 'request', 'requests')}"
    for note in proof.notes:
        yield "Note", note


def case_checks(proof: Proof) -> Iterator[Check]:
    """Yield a check for each verdict of a smoke test, and for each signature that has none."""
    for one in proof.report.verdicts:
        yield Check(
            group=CASES,
            name=one.signature,
            outcome=one.outcome,
            reason=one.reason,
            source=one.source,
            call=one.api,
            requests=one.requests,
            milliseconds=finite(one.milliseconds) or 0.0,
        )
    judged = {one.signature for one in proof.report.verdicts}
    for key in proof.report.signatures:
        if key not in judged:
            yield Check(group=CASES, name=key, outcome="not checked", reason="no request was sent")


def latency_section(proof: Proof) -> Section:
    """Return histograms of the times until answers, one for each signature that has several."""
    times: dict[str, list[float]] = {}
    for one in proof.report.verdicts:
        if _is_timed(one):
            times.setdefault(one.signature, []).append(one.milliseconds)
    charts, rows = [], []
    for key, found in times.items():
        found.sort()
        p50, p99 = quantile(found, 0.5), quantile(found, 0.99)
        rows.append((key, str(len(found)), figure(p50), figure(p99), figure(found[-1])))
        if len(found) > 1:
            charts.append(_histogram(key, found))
    if not rows:
        return Section(title="Latency")
    table = Table(
        heads=("Signature", "Answers", "p50, ms", "p99, ms", "Largest, ms"), rows=tuple(rows)
    )
    remarks = ("The first answer of a signature compiles and allocates: it may stand apart.",)
    return Section(title="Latency", remarks=remarks, tables=(table,), charts=tuple(charts))


def _is_timed(verdict: Verdict) -> bool:
    return bool(verdict.requests) and bool(finite(verdict.milliseconds))


def _histogram(key: str, ordered: Sequence[float]) -> Chart:
    """Return how many answers took how long. Its last bin has all above the 99th percent, which may be far out."""
    low, high = ordered[0], max(quantile(ordered, 0.99), ordered[0])
    bins = min(_BINS, max(4, len(ordered) // 4))
    width = (high - low) / bins or 1.0
    counts = [0] * (bins + 1)
    for one in ordered:
        counts[bins if one > high else min(bins - 1, int((one - low) / width))] += 1
    names = [figure(low + at * width) for at in range(bins)] + [f"> {figure(high)}"]
    if not counts[-1]:
        counts.pop()
        names.pop()
    return Chart(
        title=f"{key}: answers by milliseconds",
        kind="bars",
        x=tuple(map(float, range(len(counts)))),
        names=tuple(names),
        series=(Series(label="answers", values=tuple(map(float, counts))),),
    )


def gate_checks(gates: Sequence[GateVerdict]) -> Iterator[Check]:
    """Yield a check for each gate. A gate whose number is missing failed."""
    for one in gates:
        yield Check(group="gates", name=one.gate, outcome=_GATES[one.verdict], reason=one.why)


def gate_section(gates: Sequence[GateVerdict], measured: Sequence[Number]) -> Section:
    """Return the gates, and what the run measured."""
    tables = []
    if gates:
        tables.append(
            Table(
                heads=("Gate", "Verdict", "Why", "File"),
                rows=tuple((one.gate, one.verdict, one.why, one.file or "-") for one in gates),
                marks=tuple(_GATES[one.verdict] for one in gates),
            )
        )
    if measured:
        tables.append(
            Table(
                title="Measured by the run",
                heads=("Name", "Last", "Step", "Lowest", "Highest"),
                rows=tuple(
                    (
                        one.name,
                        figure(one.last),
                        str(one.step),
                        figure(one.lowest),
                        figure(one.highest),
                    )
                    for one in measured
                ),
            )
        )
    return Section(title="Gates and metrics", tables=tuple(tables))


def guard_checks(guard: Guard) -> Iterator[Check]:
    """Yield the check of the signatures for clients, and of the operations for the server."""
    outcome: Outcome = "not checked" if guard.verdict == "not checked" else "passed"
    why = {
        "not checked": guard.why,
        "same": f"nothing changes for clients of {guard.against}",
        "compatible": f"compatible for clients of {guard.against}",
        "breaking": f"breaking for clients of {guard.against}, which was allowed",
    }[guard.verdict]
    yield Check(group="clients", name="signatures", outcome=outcome, reason=why)
    if guard.server_problems:
        yield Check(
            group="server",
            name=f"operations for {guard.server}",
            outcome="inconclusive",
            reason="; ".join(guard.server_problems),
        )


def guard_section(guard: Guard) -> Section:
    """Return what changes for clients, and what was allowed by name."""
    (clients, *_) = guard_checks(guard)
    remarks = [
        f"Clients: {'not checked: ' if clients.outcome == 'not checked' else ''}{clients.reason}."
    ]
    remarks += [f"Allowed by name: {one}." for one in guard.allowed]
    remarks += [f"Server: {one}." for one in (*guard.server_problems, *guard.notes)]
    return Section(
        title="Clients and operations", remarks=tuple(remarks), tables=_change_tables(guard.changes)
    )


def change_section(changes: Sequence[Change], remark: str) -> Section:
    """Return how signatures differ."""
    return Section(
        title="Differences for clients", remarks=(remark,), tables=_change_tables(changes)
    )


def _change_tables(changes: Sequence[Change]) -> tuple[Table, ...]:
    if not changes:
        return ()
    return (
        Table(
            heads=("Signature", "Change", "For clients"),
            rows=tuple(
                (one.signature, one.message, "breaking" if one.breaking else "compatible")
                for one in changes
            ),
            marks=tuple("failed" if one.breaking else "passed" for one in changes),
        ),
    )


def signature_section(*sides: tuple[str, Sequence[Signature]]) -> Section:
    """Return the inputs and outputs of signatures, a table for each side."""
    tables = [
        Table(
            title=name,
            heads=("Signature", "API", "Inputs", "Outputs"),
            rows=tuple(
                (
                    one.key,
                    one.method_name.rpartition("/")[2] or "-",
                    ", ".join(map(_spec, one.inputs)) or "nothing",
                    ", ".join(map(_spec, one.outputs)) or "nothing",
                )
                for one in signatures
            ),
        )
        for name, signatures in sides
        if signatures
    ]
    return Section(title="Signatures", tables=tuple(tables))


def _spec(spec: TensorSpec) -> str:
    default = " with default" if spec.has_default else ""
    return f"{spec.alias} {say_spec(spec)}{default}"


def origin_section(record: VersionRecord) -> Section:
    """Return where a version comes from."""
    source = record.source
    facts = [
        ("Run", source.run),
        ("Export", f"{source.export} ({source.kind})"),
        *(sorted(source.provenance.items())),
        ("Content", record.digest),
        ("TensorFlow", record.tensorflow or "unknown"),
        ("Promoted by", f"{record.user}@{record.host}, {record.created}"),
    ]
    if record.message:
        facts.append(("Message", record.message))
    facts += _origin_facts(record.origin)
    facts += [("Note", one) for one in record.doubts]
    facts += [("Not read", one) for one in record.unread]
    rows = tuple(record.origin.config.items())
    tables = (Table(title="Configuration", heads=("Key", "Value"), rows=rows),) if rows else ()
    return Section(title="Origin", facts=tuple(facts), tables=tables)


def _origin_facts(origin: Origin) -> Iterator[tuple[str, str]]:
    if origin.code is not None:
        code = origin.code
        state = {True: "with changes", False: "clean", None: "not checked for changes"}[code.dirty]
        branch = f", {code.branch}" if code.branch else ""
        yield "Code", f"git {code.commit}{branch}, {state}; of the {code.of}, at promotion"
    if origin.command:
        yield "Command", origin.command
    yield from ((f"MLflow {key}", value) for key, value in sorted(origin.mlflow.items()))
    yield from (("Pipeline", f"{key}={value}") for key, value in sorted(origin.pipeline.items()))
    yield from (
        ("Config file", f"{path} (sha256 {digest[:12]})")
        for path, digest in sorted(origin.config_files.items())
    )
    yield from (
        ("Config not read", f"{path}: {why}") for path, why in sorted(origin.config_unread.items())
    )


def drift_checks(drift: Drift) -> Iterator[Check]:
    """Yield a check for each verdict of a budget, and one if nothing was compared."""
    if drift.why:
        yield Check(
            group="drift",
            name=f"against version {drift.live}",
            outcome="not checked",
            reason=f"not compared: {drift.why}",
        )
    for one in drift.verdicts:
        yield Check(
            group="drift",
            name=f"{one.signature}: {one.output}: {one.budget}",
            outcome=one.outcome,
            reason=one.reason,
        )


def drift_section(drift: Drift, old: str) -> Section:
    """Return by how much answers differ from those of the old version, with live's own noise beside it."""
    remarks = [
        f"Not compared: {drift.why}."
        if drift.why
        else f"{plural(drift.cases, 'case was', 'cases were')} answered by both in the same server; {old} answered "
        "each twice, which shows its own noise."
    ]
    remarks += [*drift.notes, *drift.one_sided]
    remarks += [f"Not compared: {one}" for one in drift.left]
    if more := drift.left_count - len(drift.left):
        remarks.append(f"Not compared: {more} more cases.")
    tables = [
        *_drift_tables(drift.outputs),
        *_verdict_tables(drift),
        *_accuracy_tables(drift),
        *_latency_tables(drift),
    ]
    return Section(
        title=f"Drift against {old}",
        remarks=tuple(remarks),
        tables=tuple(tables),
        charts=tuple(_drift_charts(drift.outputs)),
    )


def _named(one: OutputDrift) -> str:
    return f"{one.signature}: {one.output}"


def _place(place: tuple[str, int] | None) -> str:
    return "-" if place is None else f"{place[0]}, row {place[1]}"


def _drift_tables(outputs: Sequence[OutputDrift]) -> Iterator[Table]:
    numbers = [one for one in outputs if one.elements]
    if numbers:
        yield Table(
            title="Differences of numbers",
            heads=(
                "Output",
                "Rows",
                "Largest",
                "Mean",
                "Noise, largest",
                "Noise, mean",
                "Worst case",
            ),
            rows=tuple(
                (
                    _named(one),
                    str(one.rows),
                    *map(figure, (one.largest, one.mean, one.noise_largest, one.noise_mean)),
                    _place(one.worst),
                )
                for one in numbers
            ),
        )
    labels = [one for one in outputs if one.labelled]
    if labels:
        yield Table(
            title="Churn: rows whose argmax or label changes",
            heads=("Output", "Rows", "Changed", "95 % interval", "Noise", "First case"),
            rows=tuple(
                (
                    _named(one),
                    str(one.labelled),
                    f"{one.changed} ({one.changed / one.labelled:.2%})",
                    "{:.2%} to {:.2%}".format(*churn_interval(one.changed, one.labelled)),
                    str(one.noise_changed),
                    _place(one.first_changed),
                )
                for one in labels
            ),
        )


def _verdict_tables(drift: Drift) -> Iterator[Table]:
    if drift.verdicts:
        yield Table(
            title="Budgets",
            heads=("Output", "Budget", "Verdict", "Why"),
            rows=tuple(
                (f"{one.signature}: {one.output}", one.budget, one.outcome, one.reason)
                for one in drift.verdicts
            ),
            marks=tuple(one.outcome for one in drift.verdicts),
        )


def _accuracy_tables(drift: Drift) -> Iterator[Table]:
    if drift.accuracy:
        yield Table(
            title="Accuracy on rows with a label",
            heads=(
                "Output",
                "Rows",
                "Old",
                "New",
                "Only old right",
                "Only new right",
                "McNemar's p",
            ),
            rows=tuple(
                (
                    f"{one.signature}: {one.output}",
                    str(one.rows),
                    f"{one.live} ({one.live / one.rows:.2%})" if one.rows else "-",
                    f"{one.candidate} ({one.candidate / one.rows:.2%})" if one.rows else "-",
                    str(one.only_live),
                    str(one.only_candidate),
                    figure(one.p_value),
                )
                for one in drift.accuracy
            ),
        )


def _latency_tables(drift: Drift) -> Iterator[Table]:
    sides = (("old", drift.live_latency), ("new", drift.latency))
    rows = tuple(
        (name, str(one.requests), figure(one.p50_ms), figure(one.p99_ms))
        for name, one in sides
        if one is not None
    )
    if rows:
        heads = ("Version", "Answers", "p50, ms", "p99, ms")
        yield Table(title="Latency, asked in turns", heads=heads, rows=rows)


def _drift_charts(outputs: Sequence[OutputDrift]) -> Iterator[Chart]:
    single = len({one.signature for one in outputs}) == 1
    numbers = [one for one in outputs if one.elements]
    if numbers:
        endless = sum(finite(one.largest) is None for one in numbers)
        yield Chart(
            title="Largest difference of an element",
            kind="bars",
            x=tuple(map(float, range(len(numbers)))),
            names=tuple(one.output if single else _named(one) for one in numbers),
            series=(
                Series(label="new from old", values=tuple(finite(one.largest) for one in numbers)),
                Series(
                    label="old from itself",
                    values=tuple(finite(one.noise_largest) for one in numbers),
                ),
            ),
            note=f"{endless} infinite differences are not drawn" if endless else "",
        )
    labels = [one for one in outputs if one.labelled]
    if labels:
        ends = [churn_interval(one.changed, one.labelled) for one in labels]
        yield Chart(
            title="Churn, with its 95 % interval",
            kind="bars",
            unit="share",
            x=tuple(map(float, range(len(labels)))),
            names=tuple(one.output if single else _named(one) for one in labels),
            series=(
                Series(
                    label="new from old",
                    values=tuple(one.churn for one in labels),
                    low=tuple(low for low, _ in ends),
                    high=tuple(high for _, high in ends),
                ),
                Series(
                    label="old from itself",
                    values=tuple(one.noise_changed / one.labelled for one in labels),
                ),
            ),
        )
