"""Measurements of training, as values: numbers by name, with the file and time at which they were written.

Records of versions have some of them, so the import of this module has to be cheap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EventRun", "GateVerdict", "Measured", "Measurement", "Number", "Point", "measurement"]

Source = Literal["tensorboard", "json", "csv", "mlflow"]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One number, with its step and its file below the run."""

    step: int
    value: float
    file: str
    time: float = 0.0
    """Seconds since the epoch; 0 if the file has no time."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one name: how many they are, and the last, lowest and highest one."""

    name: str
    """The folder below the run and the tag, or the keys in a file: `logs/validation/epoch_accuracy`."""
    source: Source
    count: int
    last: Point
    lowest: Point | None
    """None if all are NaN."""
    highest: Point | None
    doubtful: str = ""
    """Why it must not decide a gate: two runs wrote it at the same time."""


def measurement(name: str, source: Source, points: Sequence[Point]) -> Measurement:
    """Return the measurement of points, of which there is at least one. NaN is neither the lowest nor the highest."""

    def value(point: Point) -> float:
        return point.value

    numbers = [one for one in points if not math.isnan(one.value)]
    return Measurement(
        name=name,
        source=source,
        count=len(points),
        last=points[-1],
        lowest=min(numbers, key=value, default=None),
        highest=max(numbers, key=value, default=None),
    )


class EventRun(msgspec.Struct, frozen=True, kw_only=True):
    """One folder of event files: a run, as TensorBoard calls it."""

    path: str
    files: int
    size: int
    """Bytes of the files."""
    tags: tuple[str, ...]
    """Tags of scalars."""
    mixed: str = ""
    """The evidence that two runs wrote here at the same time."""
    reused: str = ""
    """The evidence that training began here a second time."""
    problems: tuple[str, ...] = ()
    """The parts that could not be read. All others were."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All numbers of a run."""

    measurements: tuple[Measurement, ...] = ()
    event_runs: tuple[EventRun, ...] = ()
    problems: tuple[str, ...] = ()
    """Metric files that could not be read, and files that were left out because they are too large."""

    @property
    def unread(self) -> tuple[str, ...]:
        """All that could not be read: metric files first, then event files."""
        return (*self.problems, *(one for events in self.event_runs for one in events.problems))


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a measurement that a record keeps; None where a number is NaN or infinite."""

    name: str
    last: float | None
    step: int
    lowest: float | None
    highest: float | None


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one gate for a run.

    "missing" is as bad as "failed"; "not compared" means that no version was served to compare with.
    """

    gate: str
    verdict: Literal["passed", "failed", "missing", "not compared"]
    name: str
    why: str
    value: float | None = None
    step: int | None = None
    file: str = ""
    bound: float | None = None
    served: int | None = None
