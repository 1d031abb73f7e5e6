"""MLflow's runs, and models that it logged: run id, parameters and metrics.

In its file store a run is `<experiment>/<run id>/` with `meta.yaml`, `params/`, `metrics/`, `tags/` and `artifacts/`,
one file for each parameter, metric and tag (mlflow/store/tracking/file_store.py). MLflow 3 keeps a logged model
beside the runs, as `<experiment>/models/m-…/`, and by default only artifacts in files: the rest is in a database,
`mlflow.db` (mlflow_database.py). A logged model says its run in `MLmodel`, wherever it was copied to.
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
from servingrepo.rundir.values import Other

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.rundir.look import Folder

__all__ = ["DATABASE", "MlflowRun", "logged_models", "read_mlflow"]

DATABASE = "mlflow.db"
"""Where MLflow 3 keeps runs by default, in the directory that `mlruns/` is in."""

_LINE = re.compile(
    r"^(?P<key>run_id|source_run_id|model_id|run_name|experiment_id|user_id|lifecycle_stage): (?P<value>.+)$",
    re.MULTILINE,
)
_TAGS = (
    "mlflow.source.name",
    "mlflow.source.git.commit",
    "mlflow.source.git.branch",
    "mlflow.user",
)
_ID = re.compile(r"[0-9a-f]{32}")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_MOST = 1000
_LONGEST = 1 << 20
_PARTS_OF_A_METRIC = 3
_DEEPEST = 7
"""mlflow.db is so far above `mlruns/<experiment>/models/<model>/artifacts/data/model` at most."""


class MlflowRun(msgspec.Struct, frozen=True, kw_only=True):
    """What MLflow knows of a run; `facts` are its ids, name, user, and the code that ran, as far as they are said."""

    facts: dict[str, str]
    params: dict[str, str] = {}
    measurements: tuple[Measurement, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be read, though it is there."""


def read_mlflow(run: str) -> MlflowRun | None:
    """Read the MLflow run that a directory is, or is in the artifacts of, or that logged the model that it is.

    Args:
        run: The run directory, absolute and without links: MLflow's, its `artifacts`, or a model that it logged.

    Returns:
        None if it is none of MLflow's. A model's own parameters and metrics stand in for those of its run where
        only the model was copied.
    """
    place = Path(run)
    near = (place, *islice(place.parents, 3))
    of_run = _first(place, near, "run_id")
    of_model = _first(place, near, "model_id")
    said = _said_by_the_model(place)
    model = _read_folder(of_model) if of_model is not None else None
    if model is not None:
        said = {**said, **model.facts}
    if of_run is None and of_model is not None and said.get("run_id"):
        # <experiment>/models/<model> and <experiment>/<run>
        beside = of_model.parent.parent / said["run_id"]
        of_run = beside if _facts(beside / "meta.yaml").get("run_id") == beside.name else None
    if of_run is not None:
        return _joined(_read_folder(of_run), said, model)
    return _from_database(place, said) or (
        MlflowRun(facts=said, params=model.params, measurements=model.measurements)
        if model is not None
        else MlflowRun(facts=said)
        if said.keys() & {"run_id", "model_id"}
        else None
    )


def logged_models(folder: Folder) -> Iterator[Other]:
    """Yield the models that a run logged: MLflow 3 keeps them beside the run, not in it.

    Each of `<experiment>/models/` says its run in its MLmodel, in the file store and beside a database alike.
    """
    run = Path(folder.real_path)
    if folder.path != "." or not _ID.fullmatch(run.name):
        return
    for model in sorted(islice(run.parent.glob("models/m-*"), _MOST)):
        if _facts(model / "artifacts/MLmodel").get("run_id") == run.name:
            note = "a model that MLflow logged for this run and keeps beside it"
            yield Other(kind="mlflow-output", path=f"../models/{model.name}", note=note)


def _first(place: Path, near: Iterable[Path], key: str) -> Path | None:
    """Return the folder of MLflow's that a place is, or is in the artifacts of; its name is its id."""
    for folder in near:
        inside = folder == place or "artifacts" in place.relative_to(folder).parts[:1]
        # Another meta.yaml is none of MLflow's.
        if inside and _facts(folder / "meta.yaml").get(key) == folder.name:
            return folder
    return None


def _said_by_the_model(place: Path) -> dict[str, str]:
    """Return what `MLmodel` says: in a logged model, in its artifacts, or above its SavedModel."""
    for path in (place, place / "artifacts", *islice(place.parents, 2)):
        facts = _facts(path / "MLmodel")
        if facts:
            return facts
    return {}


def _read_folder(folder: Path) -> MlflowRun:
    tags = {name: _text(folder / "tags" / name) for name in _TAGS}
    return MlflowRun(
        facts=_facts(folder / "meta.yaml") | {name: value for name, value in tags.items() if value},
        params={name: _text(path) for name, path in _files(folder / "params")},
        measurements=tuple(_metrics(folder)),
    )


def _joined(run: MlflowRun, said: dict[str, str], model: MlflowRun | None) -> MlflowRun:
    """Add to a run which model is meant, and what only that model has."""
    names = {one.name for one in run.measurements}
    more = model.measurements if model is not None else ()
    return MlflowRun(
        facts=run.facts | {key: said[key] for key in ("model_id",) if key in said},
        params={**(model.params if model is not None else {}), **run.params},
        measurements=(*run.measurements, *(one for one in more if one.name not in names)),
    )


def _from_database(place: Path, said: dict[str, str]) -> MlflowRun | None:
    """Read the run from the nearest mlflow.db above, if the directory is one of MLflow's by name or by MLmodel."""
    names = [place.name, *(parent.name for parent in islice(place.parents, 3))]
    model = said.get("model_id") or next(filter(_MODEL_ID.fullmatch, names), None)
    run = said.get("run_id") or next(filter(_ID.fullmatch, names), None)
    if run is None and model is None:
        return None
    for folder in islice(place.parents, _DEEPEST):
        if (folder / DATABASE).is_file():
            from servingrepo.rundir.mlflow_database import read_database  # sqlite3, where one is

            found = read_database(folder / DATABASE, run=run, model=model)
            if found.problem:
                return MlflowRun(facts=said, problems=(found.problem,))
            if not found.facts:
                return None
            tags = {name: found.tags[name] for name in _TAGS if found.tags.get(name)}
            return MlflowRun(
                facts=found.facts | ({"model_id": model} if model else {}) | tags,
                params=found.params,
                measurements=tuple(
                    measured
                    for name, points in found.metrics.items()
                    for measured in _measurement(name, points, file=DATABASE)
                ),
            )
    return None


def _facts(path: Path) -> dict[str, str]:
    """Return the scalars that are asked for of a YAML mapping's first level, as MLflow writes them."""
    return {
        match["key"].removeprefix("source_"): match["value"].strip("'\"")
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
            try:
                time, value, *step = map(float, line.split()[:_PARTS_OF_A_METRIC])
                points.append((int(step[0]) if step else 0, int(time), value))
            except (ValueError, OverflowError):
                continue
        yield from _measurement(name, points, file=f"metrics/{name}")


def _measurement(
    name: str, found: Iterable[tuple[int, int, float]], *, file: str
) -> Iterator[Measurement]:
    """Yield the measurement that points (step, milliseconds, value) are, if there are any.

    The last is that of the highest step, as MLflow itself says: log_model writes points of earlier steps again.
    """
    distinct = {(step, time, repr(value)): value for step, time, value in found}
    points = [
        Point(step=step, value=value, file=file, time=time / 1000)
        for (step, time, _), value in sorted(distinct.items(), key=lambda one: one[0][:2])
    ]
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
