"""Proofs on the command line: the options of a smoke test that were typed, and the lines about its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from servingrepo.options import fields_of
from servingrepo.servers.engines.options import EngineChoice
from servingrepo.smoke.drift import churn_interval
from servingrepo.smoke.report import MADE_UP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.records import Proof
    from servingrepo.smoke.drift import Drift, OutputDrift


def typed_for_smoke() -> list[str]:
    """Return the options of the smoke test that were typed on this command line."""
    ctx = click.get_current_context()
    names = {
        *(one.key for one in fields_of(EngineChoice)),
        "timeout",
        "cases",
        "strict",
        "against",
        "max_diff",
        "max_churn",
    }
    return [
        max(param.opts, key=len)
        for param in ctx.command.params
        if param.name in names
        and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


_MOST_PASSED = 20
"""Lines on cases that passed; JSON has more."""


def proof_lines(proof: Proof, subject: str) -> Iterator[str]:
    """Yield the engine, and a line for each verdict. What is not proven says so, and by which command it would be.

    Of many cases that passed, the first ones have a line, and the others are counted. `subject` is what `smoke` calls
    the version or export.
    """
    yield f"  proof     {proof.engine} ({proof.server})"
    for note in proof.notes:
        yield f"            note: {note}"
    report, passed = proof.report, 0
    for one in report.verdicts:
        if one.outcome == "passed" and one.source != MADE_UP:
            passed += 1
            if passed > _MOST_PASSED:
                continue
        mark = "not proven (inconclusive)" if one.outcome == "inconclusive" else one.outcome
        source = f", {one.source}" if one.source != MADE_UP else ""
        why = f": {one.reason}" if one.reason else ""
        yield f"            {one.signature}: {mark} ({one.api}{source}){why}"
    more = report.left_out.get("passed", 0) + max(0, passed - _MOST_PASSED)
    if more:
        yield f"            and {more} more cases passed"
    for outcome in ("failed", "inconclusive"):
        if report.left_out.get(outcome):
            yield f"            and {report.left_out[outcome]} more {outcome}"
    if report.latency is not None:
        took = report.latency
        yield (
            f"            {took.requests} answers to cases: median {took.p50_ms:.3g} ms, "
            f"99th percent {took.p99_ms:.3g} ms"
        )
    if proof.report.inconclusive:
        yield f"            real data would prove it: servingrepo smoke {subject} --case FILE"


def drift_lines(found: Drift, live: str) -> Iterator[str]:
    """Yield how the answers differ from the live version's, what the budget says, and what was not compared."""
    if found.why:
        yield f"  against   {live}: not compared: {found.why}"
    else:
        yield f"  against   {live}, in the same server: {found.cases} case{'s' * (found.cases != 1)}"
    for one in found.outputs:
        yield f"            {one.signature}: {one.output}: {'; '.join(_differences(one))}"
    for each in found.accuracy:
        yield (
            f"            {each.signature}: {each.output}: right in {each.live} > {each.candidate} of "
            f"{each.rows} rows (McNemar's p = {each.p_value:.2g})"
        )
    if found.live_latency is not None and found.latency is not None:
        before, after = found.live_latency, found.latency
        yield (
            f"            latency p50 {before.p50_ms:.3g} > {after.p50_ms:.3g} ms, p99 {before.p99_ms:.3g} > "
            f"{after.p99_ms:.3g} ms ({after.requests} requests each, in turns)"
        )
    yield from (f"            {one}" for one in found.verdicts)
    yield from (f"            note: {one}" for one in (*found.notes, *found.one_sided))
    yield from (f"            not compared: {one}" for one in found.left)
    if more := found.left_count - len(found.left):
        yield f"            not compared: {more} more"


def _differences(one: OutputDrift) -> Iterator[str]:
    if one.elements:
        yield (
            f"largest difference {one.largest:.3g}, mean {one.mean:.3g} "
            f"(live from itself: {one.noise_largest:.3g}, {one.noise_mean:.3g})"
        )
    if one.labelled:
        low, high = churn_interval(one.changed, one.labelled)
        yield (
            f"{one.changed} of {one.labelled} rows change their label, {one.changed / one.labelled:.2%} "
            f"(95 %: {low:.2%} to {high:.2%}; live from itself: {one.noise_changed})"
        )
