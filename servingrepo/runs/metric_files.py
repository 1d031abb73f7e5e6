"""Read metric files in JSON, JSON lines and CSV: all their numbers, by their keys."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any, Literal

from servingrepo.runs.listing import written
from servingrepo.runs.measurements import Measurement, Point, measurement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.runs.listing import Folder
    from servingrepo.runs.reading import FilesRead

__all__ = ["METRICS", "read_metric_file"]

METRICS = re.compile(
    r"(?:metrics|results|scores|evaluation|eval|history|metadata|training|training_log)\.(?:jsonl?|csv)"
)
"""The names of metric files."""

_LONGEST = 16 << 20
_MOST_VALUES = 1_000_000
"""Values of a file, estimated by its commas and brackets: each takes some 200 bytes of memory while it is parsed."""
_MOST_NAMES = 10_000
_LONGEST_NAME = 500
_DEEPEST = 8
_STEPS = ("step", "epoch", "global_step", "iteration")
_FARTHEST = 1 << 63


def read_metric_file(folder: Folder, name: str, *, reads: FilesRead) -> list[Measurement]:
    """Read the numbers in one file. A step is an element of a list of numbers, a line of JSON, or a row of CSV.

    `reads` reads the file, and remembers it.

    Raises:
        ValueError: Its content does not fit its name, or it is too large for metrics; the message says why.
        OSError: It cannot be read.
    """
    path = folder.files[name]
    file = folder.below(name)
    data = reads.whole(path, file, most=_LONGEST)
    kind: Literal["json", "csv"] = "csv" if name.endswith(".csv") else "json"
    between = (b",", b"\n") if kind == "csv" else (b",", b"{", b"[")
    if sum(map(data.count, between)) > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES:,} values")
    try:
        text = data.decode("utf-8-sig")
        if kind == "csv":
            found = _of_rows(_csv_rows(text))
        elif name.endswith(".jsonl"):
            found = _of_rows(json.loads(line) for line in text.split("\n") if line.strip())
        else:
            found = _few(_of_json(json.loads(text), ()))
    except _TooMuch:
        raise
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"it is no {name.rpartition('.')[2].upper()}: {error}") from None
    time = written(path)

    def point(step: int, value: float) -> Point:
        return Point(step=step, value=value, file=file, time=time)

    return [
        measurement(folder.below(key), kind, [point(*one) for one in points])
        for key, points in found.items()
    ]


class _TooMuch(ValueError):
    """The content fits the file's name, but there is too much of it."""


def _csv_rows(text: str) -> Iterator[dict[str, str]]:
    """Yield the rows of CSV by the names in the first row. Values without a name are dropped."""
    rows = csv.reader(io.StringIO(text))
    names = next(rows, [])
    for row in rows:
        if row:
            yield dict(zip(names, row, strict=False))


def _of_json(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield the numbers of a JSON value by their keys, joined with slashes."""
    if len(keys) > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _of_json(one, (*keys, key))
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        for key, points in _of_rows(value).items():
            yield _name(*keys, key), points
    elif isinstance(value, list) and value and keys:
        numbers = [_number(one) for one in value]
        if None not in numbers:
            yield _name(*keys), [(at, one) for at, one in enumerate(numbers) if one is not None]
    elif keys and (number := _number(value)) is not None:
        yield _name(*keys), [(0, number)]


def _of_rows(rows: Iterable[Any]) -> dict[str, list[tuple[int, float]]]:
    """Return the numbers of rows, by column. A column such as `step` or `epoch` gives their steps."""
    found: dict[str, list[tuple[int, float]]] = {}
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"row {at + 1} has no names")  # noqa: TRY004 - said of a file, not a type
        steps = (one for name in _STEPS if (one := _number(row.get(name))) is not None)
        # A step is a whole number, and fits into the 64 bits of a record.
        whole = (int(one) for one in steps if one == one // 1 and -_FARTHEST <= one < _FARTHEST)
        step = next(whole, at)
        rest = {key: one for key, one in row.items() if key not in _STEPS}
        flat = _few(_of_json(rest, ()))
        flat |= {
            _name(key): [(0, number)]
            for key, one in rest.items()
            if isinstance(one, str) and (number := _number(one)) is not None
        }
        for key, points in flat.items():
            found.setdefault(key, []).append((step, points[-1][1]))
        if len(found) > _MOST_NAMES:
            raise _many_names()
    return found


def _few(
    found: Iterator[tuple[str, list[tuple[int, float]]]],
) -> dict[str, list[tuple[int, float]]]:
    """Return points by name; raise an error if there are too many names."""
    by_name: dict[str, list[tuple[int, float]]] = {}
    for name, points in found:
        by_name[name] = points
        if len(by_name) > _MOST_NAMES:
            raise _many_names()
    return by_name


def _many_names() -> _TooMuch:
    return _TooMuch(f"it has more than {_MOST_NAMES:,} names")


def _name(*keys: str) -> str:
    """Join keys to a name; raise an error if it is too long."""
    if sum(map(len, keys)) > _LONGEST_NAME:
        raise _TooMuch(f"it has a name of more than {_LONGEST_NAME} characters")
    return "/".join(keys)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
