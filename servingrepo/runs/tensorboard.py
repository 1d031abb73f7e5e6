"""Read the scalars of a folder of event files, and find out whether two runs wrote into it.

A job that starts again from a checkpoint opens a new file and repeats some steps. We do as TensorBoard does
(event_processing/plugin_event_accumulator.py): from the first repeated step on, the values of earlier files are
dropped.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from servingrepo.runs.event_file import MOST_NUMBERS, MOST_TAGS, TooMuch, read_events
from servingrepo.runs.listing import size_of
from servingrepo.runs.measurements import EventRun, Measurement, Point, measurement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.runs.event_file import EventFile
    from servingrepo.runs.listing import Folder
    from servingrepo.storage.progress import Progress

__all__ = ["read_event_run"]


def read_event_run(
    folder: Folder, names: list[str], *, progress: Progress
) -> tuple[EventRun, list[Measurement]]:
    """Read a folder's event files, and return their description and their scalars.

    Raises:
        TooMuch: They have more scalars or tags than may be in memory.
    """
    by_tag: dict[str, list[_Piece]] = defaultdict(list)
    problems: list[str] = []
    total = numbers = 0
    for name in names:
        read = read_events(folder.files[name], progress=progress, most=MOST_NUMBERS - numbers)
        numbers += read.numbers
        total += size_of(folder.files[name])
        problems += [f"{folder.below(name)}: {problem}" for problem in read.problems]
        for tag, piece in _pieces(read, folder.below(name)):
            by_tag[tag].append(piece)
        if len(by_tag) > MOST_TAGS:
            raise TooMuch
    mixed, reused = _overlap(by_tag)
    measurements = [
        _measurement(folder.below(tag), _without_repeats(pieces), doubtful=mixed)
        for tag, pieces in sorted(by_tag.items())
    ]
    run = EventRun(
        path=folder.path,
        files=len(names),
        size=total,
        tags=tuple(sorted(by_tag)),
        mixed=mixed,
        reused=reused,
        problems=tuple(problems),
    )
    return run, measurements


class _Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One tag's numbers in one file, in the order of the file: arrays of equal length."""

    file: str
    steps: Any
    times: Any
    values: Any


def _pieces(read: EventFile, file: str) -> Iterable[tuple[str, _Piece]]:
    """Join the rows of each tag, in the order of the file."""
    columns: dict[str, list[tuple[Any, Any, Any, Any]]] = defaultdict(list)
    for rows in read.rows:
        if len(rows.places):
            columns[rows.tag].append((rows.places, rows.steps, rows.times, rows.values))
    for tag, parts in columns.items():
        whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.argsort(whole[0], kind="stable")
        steps_of, times_of, values_of = (column[order] for column in whole[1:])
        yield tag, _Piece(file=file, steps=steps_of, times=times_of, values=values_of)


def _overlap(by_tag: dict[str, list[_Piece]]) -> tuple[str, str]:
    """Say whether two files were written at the same time, and whether a later file repeats the first step of one."""
    mixed = reused = ""
    for tag, pieces in sorted(by_tag.items()):
        for earlier, later in itertools.pairwise(pieces):
            if later.times.min() < earlier.times.max():
                mixed = mixed or (
                    f"{earlier.file} and {later.file} both have {tag}, written at the same time: "
                    "two runs write into one folder"
                )
            elif later.steps[0] <= earlier.steps[0]:
                reused = reused or (
                    f"{later.file} begins {tag} again at step {int(later.steps[0])}, as {earlier.file} did: "
                    "the folder was used for a second run"
                )
    return mixed, reused


def _without_repeats(pieces: list[_Piece]) -> list[_Piece]:
    """Drop the values that a later file repeats: all from its first step on."""
    kept: list[_Piece] = []
    first: int | None = None
    for piece in reversed(pieces):
        keep = slice(None) if first is None else piece.steps < first
        one = msgspec.structs.replace(
            piece, steps=piece.steps[keep], times=piece.times[keep], values=piece.values[keep]
        )
        begins = int(piece.steps.min())
        first = begins if first is None else min(first, begins)
        if len(one.steps):
            kept.append(one)
    return kept[::-1]


def _measurement(name: str, pieces: list[_Piece], *, doubtful: str) -> Measurement:
    extremes = [
        _point(piece, int(find(piece.values)))
        for piece in pieces
        if not np.isnan(piece.values).all()
        for find in (np.nanargmin, np.nanargmax)
    ]
    found = measurement(name, "tensorboard", [*extremes, _point(pieces[-1], -1)])
    count = sum(len(piece.values) for piece in pieces)
    return msgspec.structs.replace(found, count=count, doubtful=doubtful)


def _point(piece: _Piece, at: int) -> Point:
    return Point(
        step=int(piece.steps[at]),
        value=float(piece.values[at]),
        file=piece.file,
        time=float(piece.times[at]),
    )
