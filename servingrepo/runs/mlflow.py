"""Read MLflow's runs and logged models: run id, parameters and metrics.

In MLflow's file store a run is `<experiment>/<run id>/` with `meta.yaml`, `params/`, `metrics/`, `tags/` and
`artifacts/`, with one file for each parameter, metric and tag (mlflow/store/tracking/file_store.py). MLflow 3 keeps a
logged model beside the runs, as `<experiment>/models/m-…/`. By default it keeps only artifacts in files, and the rest
in a database, `mlflow.db`. The file `MLmodel` of a logged model names its run, also in a copy of the model.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import time
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from servingrepo.runs.listing import read_start
from servingrepo.runs.measurements import Measurement, Point, measurement
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.values import Other, shown
from servingrepo.storage.beneath import entries_of, opened_plain, stat_plain

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from servingrepo.runs.listing import Folder

__all__ = ["Limits", "MlflowRun", "logged_models", "read_database", "read_mlflow"]

DATABASE = "mlflow.db"
"""The file in which MLflow 3 keeps runs by default. It lies beside `mlruns/`."""

_LINE = re.compile(
    r"^(?P<key>run_id|source_run_id|model_id|run_name|experiment_id|user_id|lifecycle_stage): (?P<value>.+)$",
    re.MULTILINE,
)
_TAGS = tuple(
    f"mlflow.{name}" for name in ("source.name", "source.git.commit", "source.git.branch", "user")
)
_ID = re.compile(r"[0-9a-f]{32}")
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_MOST = 1000
"""The most files of parameters, and of metrics, and the most models of an experiment."""
_DEEPEST_NAME = 8
_NO_FILE = "a link, or no file: it is not followed"
_LONGEST = 1 << 20
_LONGEST_VALUE = 8_000
"""The most bytes of a parameter or tag: MLflow takes no more, and records keep less."""
_LONGEST_METRICS = 64 << 20
_MOST_POINTS = 1_000_000
"""The most points of a run. Each takes some 200 bytes of memory until it is counted."""
_PARTS_OF_A_METRIC = 3
_DEEPEST = 7
"""Levels to search upwards for mlflow.db, from `mlruns/<experiment>/models/<model>/artifacts/data/model`."""


class MlflowRun(msgspec.Struct, frozen=True, kw_only=True):
    """An MLflow run. `facts` are its ids, name, user and code, as far as MLflow has them."""

    facts: dict[str, str]
    params: dict[str, str] = {}
    measurements: tuple[Measurement, ...] = ()
    problems: tuple[str, ...] = ()
    """The parts that exist but could not be read."""


def read_mlflow(run: str, *, reads: FilesRead | None = None) -> MlflowRun | None:
    """Read the MLflow run of a directory: the run itself, a directory in its artifacts, or a model that it logged.

    Args:
        run: The directory, absolute and without links.
        reads: The reader of parameters and metrics, which remembers them.

    Returns:
        The run; None if the directory is not MLflow's. If only a logged model was copied, the run has the model's own
        parameters and metrics.
    """
    place = Path(run)
    reads = reads or FilesRead()
    near = (place, *islice(place.parents, 3))
    of_run = _first(place, near, "run_id")
    of_model = _first(place, near, "model_id")
    facts = _facts_of_model(place)
    model = _read_folder(of_model, reads) if of_model is not None else None
    if model is not None:
        facts = {**facts, **model.facts}
    if of_run is None and of_model is not None and _is_a_name(facts.get("run_id", "")):
        # <experiment>/models/<model> and <experiment>/<run>
        beside = of_model.parent.parent / facts["run_id"]
        of_run = beside if _facts(beside / "meta.yaml").get("run_id") == beside.name else None
    if of_run is not None:
        return _joined(_read_folder(of_run, reads), facts, model)
    found = _from_database(place, facts)
    if found is None and model is not None:
        return msgspec.structs.replace(model, facts=facts)
    if found is None and facts.keys() & {"run_id", "model_id"}:
        return MlflowRun(facts=facts)
    return found


def logged_models(folder: Folder) -> Iterator[Other]:
    """Yield the models that a run logged. MLflow 3 keeps them beside the run, in `<experiment>/models/`.

    The MLmodel of each model names its run, with a file store as well as with a database.
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
    """Return the MLflow folder that is a place or has it in its artifacts. The folder's name is its id."""
    for folder in near:
        inside = folder == place or "artifacts" in place.relative_to(folder).parts[:1]
        # A meta.yaml without this id is not MLflow's.
        if inside and _facts(folder / "meta.yaml").get(key) == folder.name:
            return folder
    return None


def _facts_of_model(place: Path) -> dict[str, str]:
    """Return the facts in `MLmodel`, which lies in a logged model, in its artifacts, or above its SavedModel."""
    for path in (place, place / "artifacts", *islice(place.parents, 2)):
        facts = _facts(path / "MLmodel")
        if facts:
            return facts
    return {}


def _is_a_name(name: str) -> bool:
    """Tell whether a text of the run is a plain file name, which cannot lead to another directory."""
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


def _joined(run: MlflowRun, known: dict[str, str], model: MlflowRun | None) -> MlflowRun:
    """Add to a run the id of its model, and the parameters and metrics that only the model has."""
    names = {one.name for one in run.measurements}
    model = model or MlflowRun(facts={})
    more = (one for one in model.measurements if one.name not in names)
    return MlflowRun(
        facts=run.facts | ({"model_id": known["model_id"]} if "model_id" in known else {}),
        params=model.params | run.params,
        measurements=(*run.measurements, *more),
        problems=(*run.problems, *model.problems),
    )


def _from_database(place: Path, known: dict[str, str]) -> MlflowRun | None:
    """Read the run from the nearest mlflow.db above, if a name on the path or MLmodel has an MLflow id."""
    names = [place.name, *(parent.name for parent in islice(place.parents, 3))]
    model = known.get("model_id") or next(filter(_MODEL_ID.fullmatch, names), None)
    run = known.get("run_id") or next(filter(_ID.fullmatch, names), None)
    if run is None and model is None:
        return None
    for folder in islice(place.parents, _DEEPEST):
        if _is_there(folder / DATABASE):
            found = read_database(folder / DATABASE, run=run, model=model)
            if found.problems:
                return msgspec.structs.replace(found, facts=known)
            return found if found.facts else None
    return None


def _is_there(path: Path) -> bool:
    """Tell whether a path is a file or a link. Reading then refuses the link, and so reports it as a problem."""
    try:
        return stat.S_ISREG(stat_plain(str(path)).st_mode)
    except OSError as error:
        return error.errno == errno.ELOOP


def _facts(path: Path) -> dict[str, str]:
    """Return the values of `_LINE`'s keys in a YAML file as MLflow writes it, from its first level."""
    text = read_start(str(path), _LONGEST).decode("utf-8", "replace")
    return {
        match["key"].removeprefix("source_"): match["value"].strip("'\"")[:_LONGEST_VALUE]
        for match in _LINE.finditer(text)
        if match["value"] not in {"''", "null"}
    }


def _files(folder: Path, below: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the files of an MLflow folder: the name, which may have slashes, and the absolute path.

    Links are not followed: a link may lead to a private file, and everybody can read the records that we write.
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
                problems.append(f"{below}: only {_MOST:,} files are read, and there are more")
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
                points.append(_point(line, f"metrics/{name}"))
            except (ValueError, OverflowError):
                wrong += 1
        if wrong:
            problems.append(f"metrics/{name}: {wrong:,} of its lines are no points")
        yield from _measurement(name, points)


def _point(line: bytes, file: str) -> Point:
    """Read a line of a metric's file: milliseconds, value and, in newer files, step."""
    time, value, *step = map(float, line.split()[:_PARTS_OF_A_METRIC])
    at = int(step[0]) if step else 0
    if not -_FARTHEST <= at < _FARTHEST:
        raise ValueError("a step has more than 64 bits")
    return Point(step=at, value=value, file=file, time=int(time) / 1000)


def _measurement(name: str, found: Iterable[Point]) -> Iterator[Measurement]:
    """Yield one measurement for points; none if there are no points. Points that are equal count once.

    As in MLflow, the last point is that of the highest step, because log_model writes points of earlier steps again.
    """
    # A dictionary cannot find equal NaNs, so NaN becomes None.
    distinct = {
        (one.step, one.time, None if math.isnan(one.value) else one.value): one for one in found
    }
    if distinct:
        points = sorted(distinct.values(), key=lambda one: (one.step, one.time))
        yield measurement(name, "mlflow", points)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()


# the database ------------------------------------------------------------------------------------------
#
# MLflow 3 keeps parameters, metrics and tags by default in SQLite, with the tables and columns of
# mlflow/store/tracking/dbmodels/models.py. The file may come from a stranger and be in use. So we read a copy: SQLite
# makes files beside a database with a write-ahead log, and another user could swap the file for a link before SQLite
# opens it. We read only tables, and a bounded part of them.

_TABLES = ("runs", "params", "metrics", "tags")
_LONGEST_ROW = 1_000_000
"""The most bytes of a row; MLflow's parameters and tags have at most 8,000."""
_LONGEST_STATEMENT = 20_000
_KEPT = 2_000
"""The most characters of a parameter or tag that are kept."""
_SCHEMA_STEPS = 20
"""Thousands of SQLite's steps to list the tables: enough for 1,000 tables; MLflow has some 50."""
_FARTHEST = 1 << 63
_TRIES = 5
_QUIET = 0.1
"""Seconds since the last write before we copy: the clock of file times may tick only this often."""
_KEPT_FREE = 64 << 20
_PARTS = ("", "-wal")
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds for reading a database."""

    size: int = 1 << 30
    """The most bytes of its files, which are copied."""
    points: int = 1_000_000
    """The most points of the run's metrics."""
    text: int = 32 << 20
    """The most characters of its parameters, its tags and the names of its metrics."""
    seconds: float = 10.0
    """The most seconds of processor time."""


def read_database(
    path: Path, *, run: str | None, model: str | None, limits: Limits | None = None
) -> MlflowRun:
    """Read one run by its id, or by the id of a model that it logged. No file is written beside the database.

    Args:
        path: The database, absolute and without links.
        run: The run's id; None if only the model's id is known.
        model: The model's id.
        limits: A database beyond these limits is not read; None for the usual ones.

    Returns:
        The run. It has neither facts nor problems if the database does not know it.
    """
    import sqlite3  # imported here, because few runs have a database

    limits = limits or Limits()
    try:
        with (
            _copied(str(path), limits) as copy,
            closing(sqlite3.connect(f"file:{quote(str(copy))}?mode=rw", uri=True)) as database,
        ):
            return _Reader(database, limits).read(run, model)
    except OSError as error:
        why = error.strerror or str(error)
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        why = str(error)
    problem = f"{shown(str(path))}, MLflow's database, cannot be read: {why}"
    return MlflowRun(facts={}, problems=(problem,))


@contextmanager
def _copied(path: str, limits: Limits) -> Iterator[Path]:
    """Copy a database and its write-ahead log to a directory of our own, in a moment without writers.

    A rollback journal is not copied: SQLite would delete the file that a forged journal names. While there is a
    journal, the database is in the middle of a change.

    Raises:
        ValueError: The database is too large, or there was no such moment.
        OSError: It cannot be read or copied.
    """
    from shutil import disk_usage  # 3 ms that a run without a database need not pay
    from tempfile import gettempdir

    from servingrepo.storage.scratch import PREFIX, scratch

    with scratch(Path(gettempdir()), PREFIX) as place:
        copy = place / "mlflow.db"
        for last in (*[False] * (_TRIES - 1), True):
            before = _states(path)
            size = sum(one.size for one in before.values())
            if size > limits.size:
                raise ValueError(f"it has more than {limits.size:,} bytes")
            if size > disk_usage(place).free - _KEPT_FREE:
                raise ValueError(f"its {size:,} bytes do not fit into {gettempdir()}")
            unfinished = read_start(f"{path}-journal", 8) == _JOURNAL_MAGIC
            if not unfinished and not any(one.is_recent for one in before.values()):
                for part, state in before.items():
                    _copy(path + part, f"{copy}{part}", state.size)
                if _states(path) == before:
                    yield copy
                    return
            if last and unfinished:
                raise ValueError(
                    "a change of it is not finished (mlflow.db-journal): open it with MLflow"
                )
            time.sleep(_QUIET)
    raise ValueError("it is being written to: try again when MLflow is done")


class _State(msgspec.Struct, frozen=True):
    """The state of a file: two that are equal mean that nobody wrote it in between."""

    inode: int
    size: int
    written_ns: int

    @property
    def is_recent(self) -> bool:
        return 0 <= time.time_ns() - self.written_ns < _QUIET * 1e9


def _states(path: str) -> dict[str, _State]:
    """Return the states of the database's files that exist and are not empty, and always of the database itself."""
    found: dict[str, _State] = {}
    for part in _PARTS:
        try:
            facts = stat_plain(path + part)
        except FileNotFoundError:
            if part:
                continue
            raise
        if facts.st_size or not part:
            found[part] = _State(facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return found


def _copy(source: str, target: str, size: int) -> None:
    with opened_plain(source) as descriptor, open(target, "wb") as copy:  # noqa: PTH123 - a path's text
        while size and (piece := os.read(descriptor, min(size, 1 << 20))):
            copy.write(piece)
            size -= len(piece)


class _Reader:
    """Reads a stranger's database, and stops a query that does not end."""

    def __init__(self, database: sqlite3.Connection, limits: Limits) -> None:
        import sqlite3

        self._database = database
        self._limits = limits
        self._text = limits.text
        self._steps = _SCHEMA_STEPS
        self._ends = time.thread_time() + limits.seconds
        self._stopped = ""
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_ROW),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST_STATEMENT),
            (sqlite3.SQLITE_LIMIT_COLUMN, 500),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        ):
            database.setlimit(limit, value)
        database.set_progress_handler(self._stops, 1_000)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            database.execute(f"PRAGMA {pragma}")

    def read(self, run: str | None, model: str | None) -> MlflowRun:
        """Read a run; see `read_database`.

        Raises:
            sqlite3.Error, ValueError, TypeError: It cannot be read.
        """
        import sqlite3

        try:
            return self._read(run, model)
        except sqlite3.OperationalError:
            if self._stopped:
                raise ValueError(self._stopped) from None
            raise

    def _read(self, run: str | None, model: str | None) -> MlflowRun:
        with_models = self._check_tables()
        if run is None and with_models:
            query = "SELECT source_run_id FROM logged_models WHERE model_id = ?"
            run = next((str(one) for (one,) in self._rows(query, model) if one), None)
        query = "SELECT run_uuid, name, experiment_id, user_id, lifecycle_stage FROM runs WHERE run_uuid = ?"
        row = next(self._rows(query, run), None)
        if row is None:
            return MlflowRun(facts={})
        names = ("run_id", "run_name", "experiment_id", "user_id", "lifecycle_stage")
        facts = {name: self._kept(one) for name, one in zip(names, row, strict=True) if one}
        query = "SELECT key, value FROM tags WHERE run_uuid = ? AND key = ?"
        tags = {
            name: value
            for name in _TAGS
            for value in self._texts(query, run, name).values()
            if value
        }
        return MlflowRun(
            facts=facts | ({"model_id": model} if model else {}) | tags,
            params=self._texts("SELECT key, value FROM params WHERE run_uuid = ?", run),
            measurements=tuple(
                measured
                for name, points in self._metrics(run).items()
                for measured in _measurement(name, points)
            ),
        )

    def _check_tables(self) -> bool:
        """Refuse anything but plain tables; return whether there is a table of logged models.

        With a view, a virtual table or a computed column the file could make SQLite run its own code.
        """
        query = "SELECT name, type, rootpage, sql FROM sqlite_master"
        tables = {
            name
            for name, kind, rootpage, sql in self._rows(query)
            if kind == "table" and rootpage and str(sql).upper().startswith("CREATE TABLE")
        }
        self._steps = 1 << 62  # from here on the clock alone decides
        if missing := [name for name in _TABLES if name not in tables]:
            raise ValueError(f"it has no table {', '.join(missing)}")
        asked = [name for name in (*_TABLES, "logged_models") if name in tables]
        for name in asked:
            hidden = [one for *_, one in self._rows(f"PRAGMA table_xinfo({name})")]
            if any(hidden):
                raise ValueError(f"its table {name} has computed columns")
        return "logged_models" in tables

    def _metrics(self, run: str | None) -> dict[str, list[Point]]:
        found: dict[str, list[Point]] = {}
        left = self._limits.points
        query = "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ?"
        for key, step, at, value, is_nan in self._rows(query, run):
            left -= 1
            if left < 0:
                raise ValueError(f"the run has more than {self._limits.points:,} points of metrics")
            name = str(key)[:_KEPT]
            if name not in found:
                found[self._kept(name)] = []
            number = float("nan") if is_nan else float(value)
            found[name].append(
                Point(step=_whole(step), value=number, file=DATABASE, time=_whole(at) / 1000)
            )
        return found

    def _texts(self, query: str, *keys: str | None) -> dict[str, str]:
        return {self._kept(key): self._kept(value) for key, value in self._rows(query, *keys)}

    def _kept(self, value: object) -> str:
        """Return a value as text, and count its characters."""
        text = str(value)
        self._text -= len(text)
        if self._text < 0:
            raise ValueError(f"the run has more than {self._limits.text:,} characters of text")
        return text[:_KEPT]

    def _rows(self, query: str, *keys: str | None) -> Iterator[Any]:
        return self._database.execute(query, keys)

    def _stops(self) -> bool:
        """Tell SQLite, every thousand steps of a query, whether to end it."""
        self._steps -= 1
        if self._steps < 0:
            self._stopped = "it has more tables than MLflow makes"
        elif time.thread_time() > self._ends:
            self._stopped = f"that takes longer than {self._limits.seconds:g} s"
        return bool(self._stopped)


def _whole(number: Any) -> int:
    """Return a whole number of 64 bits, as MLflow has them."""
    whole = int(number)
    if not -_FARTHEST <= whole < _FARTHEST:
        raise ValueError("a point of a metric has a number of more than 64 bits")
    return whole
