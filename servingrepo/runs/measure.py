"""Read what training measured: TensorBoard's scalars, metrics in files, and MLflow's, without TensorFlow."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from servingrepo.errors import StorageFailed
from servingrepo.runs.listing import LINK_OUT, list_names, size_of
from servingrepo.runs.measurements import EventRun, Measured, Measurement
from servingrepo.runs.metric_files import METRICS, read_metric_file
from servingrepo.runs.mlflow import read_mlflow
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.values import shown
from servingrepo.storage.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.runs.listing import Folder, Listing
    from servingrepo.runs.mlflow import MlflowRun

__all__ = ["event_files", "measure", "measure_run", "size_of_events"]

MOST_BYTES = 4 << 30
"""The most bytes of event files. Further files are named as problems and not read."""
_EVENTS = re.compile(r".*\btfevents\.(?P<time>[0-9]+)\..*")


def measure_run(run: Path, *, progress: Progress = silent, most: int = MOST_BYTES) -> Measured:
    """Read what training measured, from event files, JSON and CSV in a run, and from MLflow.

    Args:
        run: The run directory; a link to one is followed.
        progress: Called with the bytes of event files as they are read.
        most: The most bytes of event files to read; skipped files are among the problems.

    Raises:
        StorageFailed: The run cannot be listed.
    """
    try:
        seen = list_names(os.path.realpath(run))
    except OSError as error:
        raise StorageFailed(f"{shown(str(run))} cannot be read: {error.strerror}") from None
    return measure(seen, read_mlflow(seen.run), progress=progress, most=most)


def measure(
    seen: Listing,
    tracked: MlflowRun | None,
    *,
    reads: FilesRead | None = None,
    progress: Progress = silent,
    most: int = MOST_BYTES,
) -> Measured:
    """Read what training measured from a run that was listed already; see `measure_run`.

    Args:
        seen: The names in the run.
        tracked: What MLflow knows of the run.
        reads: The reader of metric files, which remembers them.
        progress: Called with the bytes of event files as they are read.
        most: The most bytes of event files to read.
    """
    measurements: list[Measurement] = []
    event_runs: list[EventRun] = []
    problems: list[str] = []
    left = most
    for folder in seen.folders:
        names = event_files(folder)
        size = sum(size_of(folder.files[name]) for name in names)
        if size > left:
            problems.append(f"{folder.path}: {size:,} bytes of event files were not read: too much")
        elif names:
            left -= size
            _of_events(folder, names, measurements, event_runs, problems, progress=progress)
        measurements += _of_files(folder, problems, reads or FilesRead())
    if tracked is not None:
        measurements += tracked.measurements
        problems += tracked.problems
    problems += [
        f"{path}: {LINK_OUT}"
        for path, _ in seen.links_out
        if (name := path.rpartition("/")[2])
        and (METRICS.fullmatch(name) or _EVENTS.fullmatch(name))
    ]
    if not seen.complete:
        problems.append(f"only a part of the run was listed: {seen.entries:,} entries")
    return Measured(
        measurements=tuple(measurements), event_runs=tuple(event_runs), problems=tuple(problems)
    )


def size_of_events(seen: Listing) -> int:
    """Return the bytes of all event files, for a progress bar."""
    return sum(
        size_of(folder.files[name]) for folder in seen.folders for name in event_files(folder)
    )


def _of_events(
    folder: Folder,
    names: list[str],
    measurements: list[Measurement],
    event_runs: list[EventRun],
    problems: list[str],
    *,
    progress: Progress,
) -> None:
    """Add the scalars of a folder's event files."""
    # Imported here, because only event files need numpy.
    from servingrepo.runs.event_file import MOST_NUMBERS, MOST_TAGS, TooMuch
    from servingrepo.runs.tensorboard import read_event_run

    try:
        event_run, scalars = read_event_run(folder, names, progress=progress)
    except TooMuch:
        problems.append(
            f"{folder.path}: its event files were not read: they have more than {MOST_NUMBERS:,} numbers "
            f"or {MOST_TAGS:,} tags"
        )
    else:
        event_runs.append(event_run)
        measurements += scalars


def _of_files(folder: Folder, problems: list[str], reads: FilesRead) -> Iterator[Measurement]:
    """Yield the numbers of a folder's metric files; a broken file becomes a problem."""
    for name in sorted(folder.files) if not folder.is_saved_model else ():
        if METRICS.fullmatch(name):
            try:
                yield from read_metric_file(folder, name, reads=reads)
            except OSError as error:
                problems.append(f"{folder.below(name)}: {error.strerror or error}")
            except ValueError as error:
                problems.append(f"{folder.below(name)}: {error}")


def event_files(folder: Folder) -> list[str]:
    """Return the names of a folder's event files, the oldest first."""
    found = ((match, name) for name in folder.files if (match := _EVENTS.fullmatch(name)))
    return [name for _, name in sorted((int(match["time"]), name) for match, name in found)]
