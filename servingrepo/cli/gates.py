"""What a promotion was held against, and what a graph asks of a server, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.repository.records import Gate
    from servingrepo.savedmodel import Demands
    from servingrepo.savedmodel.compatibility import Change

MOST = 20
"""Changes that are shown; --json has all."""


def gate_lines(gate: Gate, *, smoked: bool = False) -> Iterator[str]:
    """Yield what clients notice and what was let through; what was not checked is called so.

    A server that was smoke-tested has said itself whether it has the operations.
    """
    if gate.verdict == "not checked":
        yield f"  clients   not checked: {gate.why}"
    elif gate.verdict == "same":
        yield f"  clients   nothing changes for those of {gate.against}"
    else:
        word = "BREAKING, which was allowed," if gate.verdict == "breaking" else "compatible"
        yield f"  clients   {word} for those of {gate.against}"
        yield from change_lines(gate.changes)
    for op in gate.allowed_ops:
        yield f"  allowed   operation {op}"
    for problem in gate.server_problems:
        yield f"  server    {problem}"
    for note in gate.notes:
        yield f"  note      {note}"
    if not gate.server and not smoked:
        yield "  server    not checked against a server's list of operations"


def change_lines(changes: Sequence[Change]) -> Iterator[str]:
    """Yield a line per change, those that break clients first."""
    for one in changes[:MOST]:
        yield f"            {'breaking: ' if one.breaking else ''}{one.message}"
    if len(changes) > MOST:
        yield f"            and {len(changes) - MOST} more (--json has all)"


def demand_lines(demands: Demands | None) -> Iterator[str]:
    """Yield what a graph asks of servers, in short; nothing where that is not on record."""
    if demands is None:
        return
    from servingrepo.rollout.gates import effect_line
    from servingrepo.savedmodel.demands import servers_for
    from servingrepo.savedmodel.wording import some

    yield f"operations    {len(demands.ops) + len(demands.function_ops)}; {servers_for(demands)}"
    if demands.custom:
        yield f"custom        {some(demands.custom)}: no TensorFlow Serving has them"
    for one in demands.effects:
        yield f"reaches out   {effect_line(one)}; promote needs --allow-op {one.op}"
