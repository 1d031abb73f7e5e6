"""tf.estimator's layout: `export/<exporter>/<timestamp>/` in the model_dir, next to checkpoints and events.

An exporter writes to `temp-<timestamp>` and renames it when done (tensorflow_estimator's export_lib), so a
temporary directory is an export that was never finished. TFX's Trainer for estimators leaves the same in
`Format-Serving/`, earlier `serving_model_dir/` (tfx/utils/path_utils.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.runs.values import Candidate

__all__ = ["exporters", "is_export", "is_temporary", "newest"]

_EXPORT = re.compile(r"(?:(?:Format-Serving|serving_model_dir)/)?export/(?:[^/]+/)?[0-9]+")
_TEMPORARY = re.compile(r"(?:.*/)?temp-(?:[0-9]+|b.[0-9]+.)")  # b'123': TensorFlow 1.0 to 1.3


def is_export(path: str) -> bool:
    """Tell whether a path below the run is where an exporter leaves a finished export."""
    return _EXPORT.fullmatch(path) is not None


def is_temporary(path: str) -> bool:
    """Tell whether a path below the run is an exporter's temporary directory."""
    return _TEMPORARY.fullmatch(path) is not None


def exporters(exports: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    """Group exports by the directory of their exporter, the newest of each first."""
    found: dict[str, list[Candidate]] = {}
    for export in exports:
        found.setdefault(export.path.rpartition("/")[0], []).append(export)
    for group in found.values():
        group.sort(key=_timestamp, reverse=True)
    return found


def newest(exports: Iterable[Candidate]) -> list[Candidate]:
    """Return each exporter's newest export: the highest timestamp, which is its directory's name."""
    return [group[0] for group in exporters(exports).values()]


def _timestamp(export: Candidate) -> int:
    return int(export.path.rpartition("/")[2])
