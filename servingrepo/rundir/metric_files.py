"""Metrics in JSON, JSON lines and CSV: whatever numbers they hold, by their keys."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from servingrepo.rundir.look import read_start
from servingrepo.rundir.measurements import Measurement, Point

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.rundir.look import Folder

__all__ = ["METRICS", "read_metric_file"]

METRICS = re.compile(
    r"(?:metrics|results|scores|evaluation|eval|history|metadata|training|training_log)\.(?:jsonl?|csv)"
)
"""Names of files that hold metrics."""

_LONGEST = 16 << 20
_DEEPEST = 8
_STEPS = ("step", "epoch", "global_step", "iteration")


def read_metric_file(folder: Folder, name: str) -> list[Measurement]:
    """Read the numbers in one file; a list of numbers, a line of JSON or of CSV is a step.

    Raises:
        ValueError: It is not what its name says; the message says why.
    """
    path = folder.files[name]
    data = read_start(path, _LONGEST + 1)
    if len(data) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST:,} bytes")
    kind: Literal["json", "csv"] = "csv" if name.endswith(".csv") else "json"
    try:
        text = data.decode("utf-8-sig")
        if kind == "csv":
            found = _of_rows(list(csv.DictReader(io.StringIO(text))))
        elif name.endswith(".jsonl"):
            found = _of_rows([json.loads(line) for line in text.splitlines() if line.strip()])
        else:
            found = dict(_of_json(json.loads(text), ()))
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"it is no {name.rpartition('.')[2].upper()}: {error}") from None
    time = Path(path).stat().st_mtime
    file = folder.below(name)
    return [
        _measurement(folder.below(key), points, file=file, time=time, source=kind)
        for key, points in found.items()
    ]


def _of_json(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield the numbers of a JSON value by their keys, joined with slashes."""
    if len(keys) > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _of_json(one, (*keys, key))
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        for key, points in _of_rows(value).items():
            yield "/".join((*keys, key)), points
    elif isinstance(value, list) and value and keys:
        numbers = [_number(one) for one in value]
        if None not in numbers:
            yield "/".join(keys), [(at, one) for at, one in enumerate(numbers) if one is not None]
    elif keys and (number := _number(value)) is not None:
        yield "/".join(keys), [(0, number)]


def _of_rows(rows: list[Any]) -> dict[str, list[tuple[int, float]]]:
    """Return the numbers of rows, by column; a column such as `step` or `epoch` counts them."""
    found: dict[str, list[tuple[int, float]]] = {}
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"row {at + 1} has no names")  # noqa: TRY004 - said of a file, not a type
        steps = (_number(row.get(name)) for name in _STEPS)
        step = next((int(one) for one in steps if one is not None and one == one // 1), at)
        flat = dict(_of_json({key: one for key, one in row.items() if key not in _STEPS}, ()))
        flat |= {
            key: [(0, number)]
            for key, one in row.items()
            if isinstance(key, str) and isinstance(one, str) and key not in _STEPS
            if (number := _number(one)) is not None
        }
        for key, points in flat.items():
            found.setdefault(key, []).append((step, points[-1][1]))
    return found


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _measurement(
    name: str,
    points: list[tuple[int, float]],
    *,
    file: str,
    time: float,
    source: Literal["json", "csv"],
) -> Measurement:
    every = [Point(step=step, value=value, file=file, time=time) for step, value in points]
    numbers = [one for one in every if not math.isnan(one.value)]
    return Measurement(
        name=name,
        source=source,
        count=len(every),
        last=every[-1],
        lowest=min(numbers, key=lambda one: one.value, default=None),
        highest=max(numbers, key=lambda one: one.value, default=None),
    )
