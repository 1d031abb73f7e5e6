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


def proof_lines(proof: Proof) -> Iterator[str]:
    """Yield the engine, and a line for each signature. An inconclusive one is not proven, and says so."""
    yield f"  proof     {proof.engine} ({proof.server})"
    for note in proof.notes:
        yield f"            note: {note}"
    for one in proof.report.verdicts:
        mark = "not proven (inconclusive)" if one.outcome == "inconclusive" else one.outcome
        source = f", {one.source}" if one.source != MADE_UP else ""
        why = f": {one.reason}" if one.reason else ""
        yield f"            {one.signature}: {mark} ({one.api}{source}){why}"
