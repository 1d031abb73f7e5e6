"""Proofs on the command line: the options of a smoke test that were typed, and the lines about its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from servingrepo.options import fields_of
from servingrepo.servers.engines.options import EngineChoice
from servingrepo.smoke.report import MADE_UP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.records import Proof


def typed_for_smoke() -> list[str]:
    """Return the options of the smoke test that were typed on this command line."""
    ctx = click.get_current_context()
    names = {*(one.key for one in fields_of(EngineChoice)), "timeout", "cases", "strict"}
    return [
        max(param.opts, key=len)
        for param in ctx.command.params
        if param.name in names
        and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]


_MOST_PASSED = 20
"""Lines on cases that passed; JSON has more."""


def proof_lines(proof: Proof) -> Iterator[str]:
    """Yield the engine, and a line for each verdict. An inconclusive one is not proven, and says so.

    Of many cases that passed, the first ones have a line, and the others are counted.
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
