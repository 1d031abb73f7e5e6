"""MLflow's runs, and models that it logged: run id, parameters and metrics.

In its file store a run is `<experiment>/<run id>/` with `meta.yaml`, `params/`, `metrics/`, `tags/` and `artifacts/`,
one file for each parameter, metric and tag (mlflow/store/tracking/file_store.py). MLflow 3 keeps a logged model
beside the runs, as `<experiment>/models/m-…/`, and by default only artifacts in files: the rest is in a database,
`mlflow.db` (mlflow_database.py). A logged model says its run in `MLmodel`, wherever it was copied to.
"""

from __future__ import annotations

import errno
import math
import re
import stat
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.runs.look import read_start
from servingrepo.runs.measurements import Measurement, Point
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.values import Other
from servingrepo.storage.beneath import entries_of, stat_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.runs.look import Folder

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
"""Files of parameters, and of metrics; models of an experiment."""
_DEEPEST_NAME = 8
_NO_FILE = "a link, or no file: it is not followed"
_LONGEST = 1 << 20
_LONGEST_VALUE = 8_000
"""Bytes of a parameter or tag: MLflow takes no more, and records keep less."""
_LONGEST_METRICS = 64 << 20
_MOST_POINTS = 1_000_000
"""Of a run; some 200 bytes of memory each, until they are counted."""
_PARTS_OF_A_METRIC = 3
_FARTHEST = 1 << 63
_DEEPEST = 7
"""mlflow.db is so far above `mlruns/<experiment>/models/<model>/artifacts/data/model` at most."""


class MlflowRun(msgspec.Struct, frozen=True, kw_only=True):
    """What MLflow knows of a run; `facts` are its ids, name, user, and the code that ran, as far as they are said."""

    facts: dict[str, str]
    params: dict[str, str] = {}
    measurements: tuple[Measurement, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be read, though it is there."""


def read_mlflow(run: str, *, reads: FilesRead | None = None) -> MlflowRun | None:
    """Read the MLflow run that a directory is, or is in the artifacts of, or that logged the model that it is.

    Args:
        run: The run directory, absolute and without links: MLflow's, its `artifacts`, or a model that it logged.
        reads: Reads parameters and metrics, and remembers them.

    Returns:
        None if it is none of MLflow's. A model's own parameters and metrics stand in for those of its run where
        only the model was copied.
    """
    place = Path(run)
    reads = reads or FilesRead()
    near = (place, *islice(place.parents, 3))
    of_run = _first(place, near, "run_id")
    of_model = _first(place, near, "model_id")
    said = _said_by_the_model(place)
    model = _read_folder(of_model, reads) if of_model is not None else None
    if model is not None:
        said = {**said, **model.facts}
    if of_run is None and of_model is not None and _is_a_name(said.get("run_id", "")):
        # <experiment>/models/<model> and <experiment>/<run>
        beside = of_model.parent.parent / said["run_id"]
        of_run = beside if _facts(beside / "meta.yaml").get("run_id") == beside.name else None
    if of_run is not None:
        return _joined(_read_folder(of_run, reads), said, model)
    return _from_database(place, said) or (
        msgspec.structs.replace(model, facts=said)
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
    models = run.parent / "models"
    with suppress(OSError):
        found = (
            name
            for name, kind in entries_of(str(models), most=10 * _MOST)
            if kind == "directory" and name.startswith("m-")
        )
        for name in islice(found, _MOST):
            if _facts(models / name / "artifacts/MLmodel").get("run_id") == run.name:
                note = "a model that MLflow logged for this run and keeps beside it"
                yield Other(kind="mlflow-output", path=f"../models/{name}", note=note)


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


def _is_a_name(name: str) -> bool:
    """Tell whether a text of the run is the name of something beside it, and no way to something else."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name


def _read_folder(folder: Path, reads: FilesRead) -> MlflowRun:
    problems: list[str] = []
    tags = {
        name: _text(read_start(path, _LONGEST_VALUE))
        for name, path in _files(folder, "tags", problems)
        if name in _TAGS
    }
    params = {
        name: _text(reads.start(path, f"params/{name}", _LONGEST_VALUE))
        for name, path in _files(folder, "params", problems)
    }
    return MlflowRun(
        facts=_facts(folder / "meta.yaml") | {name: value for name, value in tags.items() if value},
        params=params,
        measurements=tuple(_metrics(folder, reads, problems)),
        problems=tuple(problems),
    )


def _joined(run: MlflowRun, said: dict[str, str], model: MlflowRun | None) -> MlflowRun:
    """Add to a run which model is meant, and what only that model has."""
    names = {one.name for one in run.measurements}
    more = model.measurements if model is not None else ()
    return MlflowRun(
        facts=run.facts | {key: said[key] for key in ("model_id",) if key in said},
        params={**(model.params if model is not None else {}), **run.params},
        measurements=(*run.measurements, *(one for one in more if one.name not in names)),
        problems=(*run.problems, *(model.problems if model is not None else ())),
    )


def _from_database(place: Path, said: dict[str, str]) -> MlflowRun | None:
    """Read the run from the nearest mlflow.db above, if the directory is one of MLflow's by name or by MLmodel."""
    names = [place.name, *(parent.name for parent in islice(place.parents, 3))]
    model = said.get("model_id") or next(filter(_MODEL_ID.fullmatch, names), None)
    run = said.get("run_id") or next(filter(_ID.fullmatch, names), None)
    if run is None and model is None:
        return None
    for folder in islice(place.parents, _DEEPEST):
        if _is_there(folder / DATABASE):
            from servingrepo.runs.mlflow_database import read_database  # sqlite3, where one is

            found = read_database(folder / DATABASE, run=run, model=model, tags=_TAGS)
            if found.problem:
                return MlflowRun(facts=said, problems=(found.problem,))
            if not found.facts:
                return None
            tags = {name: value for name, value in found.tags.items() if value}
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


def _is_there(path: Path) -> bool:
    """Tell whether there is a file of that name, or a link, which is not followed and hence a problem."""
    try:
        return stat.S_ISREG(stat_plain(str(path)).st_mode)
    except OSError as error:
        return error.errno == errno.ELOOP


def _facts(path: Path) -> dict[str, str]:
    """Return the scalars that are asked for of a YAML mapping's first level, as MLflow writes them."""
    text = read_start(str(path), _LONGEST).decode("utf-8", "replace")
    return {
        match["key"].removeprefix("source_"): match["value"].strip("'\"")[:_LONGEST_VALUE]
        for match in _LINE.finditer(text)
        if match["value"] not in {"''", "null"}
    }


def _files(folder: Path, below: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the files of a folder of MLflow's, by name and absolute; a name with slashes is a path.

    A link may lead anywhere, and what is read goes into records that everybody reads: none is followed.
    """
    left = _MOST
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            entries = entries_of(f"{folder}/{below}/{prefix}".rstrip("/"), most=left + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{below}/{prefix}: {error.strerror or error}")
            continue
        for name, kind in entries:
            left -= 1
            if left < 0:
                problems.append(f"{below}: more than {_MOST:,} files are not looked at")
                return
            if kind == "file":
                yield prefix + name, f"{folder}/{below}/{prefix}{name}"
            elif kind == "directory" and prefix.count("/") < _DEEPEST_NAME:
                folders.append(f"{prefix}{name}/")
            else:
                problems.append(f"{below}/{prefix}{name}: {_NO_FILE}")


def _metrics(folder: Path, reads: FilesRead, problems: list[str]) -> Iterator[Measurement]:
    size, points_left = _LONGEST_METRICS, _MOST_POINTS
    for name, path in _files(folder, "metrics", problems):
        try:
            data = reads.whole(path, f"metrics/{name}", most=size, grows=True)
        except OSError as error:
            problems.append(f"metrics/{name}: {error.strerror or error}")
            continue
        except ValueError:
            problems.append(
                f"metrics: they have more than {_LONGEST_METRICS:,} bytes: {name} is not read"
            )
            continue
        size -= len(data)
        points_left -= data.count(b"\n")
        if points_left < 0:
            problems.append(
                f"metrics: they have more than {_MOST_POINTS:,} points: {name} is not read"
            )
            continue
        points = []
        wrong = 0
        for line in data.splitlines():
            try:
                points.append(_point(line))
            except (ValueError, OverflowError):
                wrong += 1
        if wrong:
            problems.append(f"metrics/{name}: {wrong:,} of its lines are no points")
        yield from _measurement(name, points, file=f"metrics/{name}")


def _point(line: bytes) -> tuple[int, int, float]:
    """Read a line of a metric's file: milliseconds, value, and step in newer ones."""
    time, value, *step = map(float, line.split()[:_PARTS_OF_A_METRIC])
    at = int(step[0]) if step else 0
    if not -_FARTHEST <= at < _FARTHEST:
        raise ValueError("a step has more than 64 bits")
    return at, int(time), value


def _measurement(
    name: str, found: Iterable[tuple[int, int, float]], *, file: str
) -> Iterator[Measurement]:
    """Yield the measurement that points (step, milliseconds, value) are, if there are any.

    The last is that of the highest step, as MLflow itself says: log_model writes points of earlier steps again.
    """
    # NaN is not equal to itself, and None is.
    distinct = dict.fromkeys(
        (step, time, value if value == value else None)  # noqa: PLR0124
        for step, time, value in found
    )
    if not distinct:
        return

    def point(one: tuple[int, int, float | None]) -> Point:
        step, time, value = one
        return Point(
            step=step, value=math.nan if value is None else value, file=file, time=time / 1000
        )

    points = sorted(distinct, key=lambda one: one[:2])
    numbers = [one for one in points if one[2] is not None]
    yield Measurement(
        name=name,
        source="mlflow",
        count=len(points),
        last=point(points[-1]),
        lowest=point(min(numbers, key=_value)) if numbers else None,
        highest=point(max(numbers, key=_value)) if numbers else None,
    )


def _value(point: tuple[int, int, float | None]) -> float:
    return point[2] or 0.0


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()
