"""Lines about the compatibility of an export, and about the operations that its graph needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.repository.records import Guard
    from servingrepo.savedmodel.compatibility import Change
    from servingrepo.savedmodel.values import Demands

MOST = 20
"""The limit of changes in the output; --json has all."""


def compatibility_lines(guard: Guard, *, smoked: bool = False, width: int = 10) -> Iterator[str]:
    """Yield the changes for clients, and what was allowed or not checked.

    A smoke test shows by itself whether its server has the operations.
    """
    for title, text in _rows(guard, smoked=smoked):
        yield f"  {title:<{width}}{text}"


def _rows(guard: Guard, *, smoked: bool) -> Iterator[tuple[str, str]]:
    if guard.verdict == "not checked":
        yield "clients", f"not checked: {guard.why}"
    elif guard.verdict == "same":
        yield "clients", f"nothing changes for those of {guard.against}"
    else:
        word = "BREAKING, which was allowed," if guard.verdict == "breaking" else "compatible"
        yield "clients", f"{word} for those of {guard.against}"
        for line in change_lines(guard.changes):
            yield "", line
    for op in guard.allowed_ops:
        yield "allowed", f"operation {op}"
    for problem in guard.server_problems:
        yield "server", problem
    for note in guard.notes:
        yield "note", note
    if not guard.server and not smoked:
        yield "server", "not checked against a server's list of operations"


def change_lines(changes: Sequence[Change]) -> Iterator[str]:
    """Yield a line for each change; those that break clients say so."""
    for one in changes[:MOST]:
        yield f"{'breaking: ' if one.breaking else ''}{one.message}"
    if len(changes) > MOST:
        yield f"and {len(changes) - MOST} more (--json has all)"


def demand_lines(demands: Demands | None) -> Iterator[str]:
    """Yield a summary of the operations that a graph needs; nothing if the record does not have them."""
    if demands is None:
        return
    from servingrepo.savedmodel.server_fit import effect_line, servers_for
    from servingrepo.texts import some

    yield f"operations    {len(demands.ops) + len(demands.function_ops)}; {servers_for(demands)}"
    if demands.custom:
        yield f"custom        {some(demands.custom)}: no TensorFlow Serving has them"
    for one in demands.effects:
        yield f"reaches out   {effect_line(one)}"
