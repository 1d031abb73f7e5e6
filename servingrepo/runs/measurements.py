"""Measurements of training, as values: numbers by name, with where and when they were written.

Records of versions hold them, so importing this module costs nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["EventRun", "GateVerdict", "Measured", "Measurement", "Number", "Point"]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One number: its step, and the file that it stands in, below the run."""

    step: int
    value: float
    file: str
    time: float = 0.0
    """Seconds since the epoch; 0 where the file does not say."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one name, and which of them matter."""

    name: str
    """The folder below the run and the tag, or the keys in a file: `logs/validation/epoch_accuracy`."""
    source: Literal["tensorboard", "json", "csv", "mlflow"]
    count: int
    last: Point
    lowest: Point | None
    """None if all are NaN."""
    highest: Point | None
    doubtful: str = ""
    """Why nothing should be decided by it: two runs wrote it at the same time."""


class EventRun(msgspec.Struct, frozen=True, kw_only=True):
    """One folder of event files: a run, as TensorBoard calls it."""

    path: str
    files: int
    size: int
    """Bytes of the files."""
    tags: tuple[str, ...]
    """Tags of scalars."""
    mixed: str = ""
    """How it is known that two runs wrote here at the same time."""
    reused: str = ""
    """How it is known that training began here a second time."""
    problems: tuple[str, ...] = ()
    """What could not be read; everything else was."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run's files say in numbers."""

    measurements: tuple[Measurement, ...] = ()
    event_runs: tuple[EventRun, ...] = ()
    problems: tuple[str, ...] = ()
    """Files of metrics that could not be read, and what was left out because there is too much of it."""


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """What a record keeps of a measurement; None where a number is NaN or infinite."""

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
