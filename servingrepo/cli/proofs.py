"""Lines about a proof: its server, and the result of each signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.smoke.report import MADE_UP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.records import Proof


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
