"""Staleness: signs that a run's SavedModel is not the one with which its training ended.

The times are those of files. A copy that does not keep them can hide a sign. It writes files in any order, so a
difference of up to a minute is no sign.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from servingrepo.runs.configuration import CONFIGS
from servingrepo.runs.listing import written
from servingrepo.runs.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.runs.listing import Listing
    from servingrepo.runs.measurements import Measured
    from servingrepo.runs.values import RunScan

__all__ = ["staleness_of"]

_SECONDS = 60.0
_CHECKPOINT = re.compile(r".*\.(?:index|keras|h5|hdf5)", re.DOTALL)


def staleness_of(scan: RunScan, seen: Listing, measured: Measured) -> tuple[str, ...]:
    """Return the signs that a run is stale or mixed, a line each.

    The signs are: a checkpoint or configuration that was written more than a minute after the SavedModel, a second
    SavedModel if the user chose none, and event files of a second run, after the first one or at the same time.
    """
    taken = next(one for one in scan.candidates if one.real_path == scan.export)
    found: list[str] = []
    for what, wanted in (("checkpoint", _CHECKPOINT), ("configuration", CONFIGS)):
        newest = max(_files(seen, wanted), default=None)
        if newest is not None and newest[0] > taken.written + _SECONDS:
            found.append(
                f"the {what} {shown(newest[1])} was written {_time(newest[0])}, after the SavedModel "
                f"{shown(taken.path)}, {_time(taken.written)}"
            )
    if scan.kind != "chosen":
        # An exporter of tf.estimator keeps its earlier exports, so these are no sign.
        exporter = taken.path.rpartition("/")[0] if scan.kind == "estimator-export" else None
        found += [
            f"there is another SavedModel, {one}"
            for one in scan.candidates
            if one is not taken and (exporter is None or one.path.rpartition("/")[0] != exporter)
        ]
    for run in measured.event_runs:
        found += filter(None, (run.mixed, run.reused))
    return tuple(found)


def _files(seen: Listing, wanted: re.Pattern[str]) -> Iterator[tuple[float, str]]:
    """Yield the time and path of each file that has a wanted name and is no part of a SavedModel."""
    parts = tuple(
        f"{folder.real_path}/"
        for folder in seen.folders
        if folder.is_saved_model and folder.depth > 0
    )
    for folder in seen.folders:
        if folder.is_saved_model or f"{folder.real_path}/".startswith(parts):
            continue
        for name in folder.files:
            if wanted.fullmatch(name):
                yield written(folder.files[name]), folder.below(name)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
