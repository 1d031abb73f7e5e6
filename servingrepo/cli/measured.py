"""Lines about the measurements of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.runs import Measured, Measurement, Point

_MOST = 12


def event_lines(measured: Measured) -> Iterator[str]:
    """Yield the problems of event files and metrics."""
    for run in measured.event_runs:
        for problem in run.problems:
            yield f"note          {problem}"
    for problem in measured.problems:
        yield f"note          {problem}"


def measured_lines(measurements: Sequence[Measurement], *, brief: bool) -> Iterator[str]:
    """Yield a line for each name with its last, lowest and highest value; at most a dozen lines if `brief`."""
    shown = measurements[:_MOST] if brief else measurements
    for one in shown:
        ends = ""
        if one.lowest is not None and one.highest is not None and one.count > 1:
            ends = f"; lowest {_value(one.lowest)}, highest {_value(one.highest)}"
        yield f"measured      {one.name}: last {_value(one.last)}{ends}"
    if len(shown) < len(measurements):
        yield f"measured      and {len(measurements) - len(shown)} more: -v shows them"


def _value(point: Point) -> str:
    return f"{point.value:.6g} (step {point.step})"
