"""MLflow's runs in a file store, and models that it logged: run id, parameters and metrics.

A run is `<experiment>/<run id>/` with `meta.yaml`, `params/`, `metrics/`, `tags/` and `artifacts/`, one file for
each parameter, metric and tag (mlflow/store/tracking/file_store.py). A logged model says its run in `MLmodel`.
"""

from __future__ import annotations

import math
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.rundir.look import read_start
from servingrepo.rundir.measurements import Measurement, Point

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MlflowRun", "read_mlflow"]

_LINE = re.compile(
    r"^(?P<key>run_id|run_name|experiment_id|user_id|lifecycle_stage): (?P<value>.+)$", re.MULTILINE
)
_TAGS = (
    "mlflow.source.name",
    "mlflow.source.git.commit",
    "mlflow.source.git.branch",
    "mlflow.user",
)
_MOST = 1000
_LONGEST = 1 << 20
_PARTS_OF_A_METRIC = 3


class MlflowRun(msgspec.Struct, frozen=True, kw_only=True):
    """What MLflow knows of a run; `facts` are its ids, name, user, and the code that ran, as far as they are said."""

    facts: dict[str, str]
    params: dict[str, str] = {}
    measurements: tuple[Measurement, ...] = ()


def read_mlflow(run: str) -> MlflowRun | None:
    """Read the MLflow run that a directory is, or is in the artifacts of; None if it is none.

    Args:
        run: The run directory, absolute and without links: MLflow's, its `artifacts`, or a model that it logged.
    """
    place = Path(run)
    for folder in (place, *islice(place.parents, 3)):
        inside = folder == place or "artifacts" in place.relative_to(folder).parts[:1]
        if inside and (folder / "meta.yaml").is_file():
            facts = _facts(folder / "meta.yaml")
            # The folder of a run is called as the run: another meta.yaml is none of MLflow's.
            if facts.get("run_id") == folder.name:
                tags = {name: _text(folder / "tags" / name) for name in _TAGS}
                return MlflowRun(
                    facts=facts | {name: value for name, value in tags.items() if value},
                    params={name: _text(path) for name, path in _files(folder / "params")},
                    measurements=tuple(_metrics(folder)),
                )
    facts = _facts(place / "MLmodel")
    return MlflowRun(facts=facts) if "run_id" in facts else None


def _facts(path: Path) -> dict[str, str]:
    """Return the scalars that are asked for of a YAML mapping's first level, as MLflow writes them."""
    return {
        match["key"]: match["value"].strip("'\"")
        for match in _LINE.finditer(_text(path))
        if match["value"] not in {"''", "null"}
    }


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield a folder's files by name; a name with slashes is a path."""
    for path in sorted(islice(folder.rglob("*"), _MOST)):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def _metrics(folder: Path) -> Iterator[Measurement]:
    for name, path in _files(folder / "metrics"):
        points = []
        for line in _text(path).splitlines():
            parts = line.split()
            try:
                time, value, *step = map(float, parts[:_PARTS_OF_A_METRIC])
            except ValueError:
                continue
            points.append(
                Point(
                    step=int(step[0]) if step else 0,
                    value=value,
                    file=f"metrics/{name}",
                    time=time / 1000,
                )
            )
        numbers = [point for point in points if not math.isnan(point.value)]
        if points:
            yield Measurement(
                name=name,
                source="mlflow",
                count=len(points),
                last=points[-1],
                lowest=min(numbers, key=lambda one: one.value, default=None),
                highest=max(numbers, key=lambda one: one.value, default=None),
            )


def _text(path: Path) -> str:
    return read_start(str(path), _LONGEST).decode("utf-8", "replace").strip()
