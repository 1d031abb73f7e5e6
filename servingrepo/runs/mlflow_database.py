"""One run in MLflow's database, `mlflow.db`: SQLite, where MLflow 3 keeps parameters, metrics and tags by default.

Tables and columns as in mlflow/store/tracking/dbmodels/models.py. The file may come from anywhere and be in use. So a
copy is read: SQLite makes files beside a database with a write-ahead log, and what SQLite is asked to open may be
swapped for a link. Only tables are read, and how much they hold is bounded.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from servingrepo.runs.look import read_start
from servingrepo.runs.values import shown
from servingrepo.storage.beneath import opened_plain, stat_plain
from servingrepo.storage.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["InDatabase", "Limits", "read_database"]

_TABLES = ("runs", "params", "metrics", "tags")
_LONGEST = 1_000_000
"""Bytes of a row: MLflow's parameters and tags have 8,000 at most."""
_LONGEST_STATEMENT = 20_000
_KEPT = 2_000
"""Characters of a parameter or tag."""
_SCHEMA_STEPS = 20
"""Thousands of SQLite's steps while it reads what tables there are: more than 1,000 of them; MLflow has some 50."""
_FARTHEST = 1 << 63
_TRIES = 5
_QUIET = 0.1
"""Seconds for which nobody may have written: the clock of a file's times does not tick more often than that."""
_PREFIX = "servingrepo-scratch-"
_KEPT_FREE = 64 << 20
_PARTS = ("", "-wal")
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is read of a database."""

    size: int = 1 << 30
    """Bytes of its files: they are copied."""
    points: int = 1_000_000
    """Of the run's metrics."""
    text: int = 32 << 20
    """Characters of its parameters, tags and the names of its metrics."""
    seconds: float = 10.0
    """Of processor time."""


class InDatabase(msgspec.Struct, frozen=True, kw_only=True):
    """What the database has of a run; without facts it does not know it."""

    facts: dict[str, str] = {}
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: dict[str, list[tuple[int, int, float]]] = {}
    """Step, milliseconds since the epoch, value."""
    problem: str = ""
    """Why it could not be read."""


def read_database(
    path: Path,
    *,
    run: str | None,
    model: str | None,
    tags: tuple[str, ...] = (),
    limits: Limits | None = None,
) -> InDatabase:
    """Read one run by its id, or by that of a model that it logged; nothing is written beside the database.

    Args:
        path: The database, absolute and without links.
        run: The run's id; None where only the model's is known.
        model: The model's id.
        tags: Which tags to read.
        limits: Beyond them the database is not read.
    """
    try:
        with (
            _copied(str(path), limits or Limits()) as copy,
            closing(sqlite3.connect(f"file:{quote(str(copy))}?mode=rw", uri=True)) as database,
        ):
            return _Reader(database, limits or Limits()).read(run, model, tags)
    except OSError as error:
        why = error.strerror or str(error)
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        why = str(error)
    return InDatabase(problem=f"{shown(str(path))}, MLflow's database, cannot be read: {why}")


@contextmanager
def _copied(path: str, limits: Limits) -> Iterator[Path]:
    """Copy a database and its write-ahead log to a directory of our own, in one moment in which nobody writes.

    A rollback journal is not copied: SQLite would delete the file that a forged one names. While there is one, the
    database is in the middle of a change.

    Raises:
        ValueError: It is too large, or there was no such moment.
        OSError: It cannot be read or copied.
    """
    with scratch(Path(tempfile.gettempdir()), _PREFIX) as place:
        copy = place / "mlflow.db"
        for last in (*[False] * (_TRIES - 1), True):
            before = _states(path)
            size = sum(one.st_size for one in before.values())
            if size > limits.size:
                raise ValueError(f"it has more than {limits.size:,} bytes")
            if size > shutil.disk_usage(place).free - _KEPT_FREE:
                raise ValueError(f"its {size:,} bytes do not fit into {tempfile.gettempdir()}")
            unfinished = read_start(f"{path}-journal", 8) == _JOURNAL_MAGIC
            if not unfinished and not any(map(_is_recent, before.values())):
                for part, facts in before.items():
                    _copy(path + part, f"{copy}{part}", facts.st_size)
                if _same(before, _states(path)):
                    yield copy
                    return
            if last and unfinished:
                raise ValueError(
                    "a change of it is not finished (mlflow.db-journal): open it with MLflow"
                )
            time.sleep(_QUIET)
    raise ValueError("it is being written to: try again when MLflow is done")


def _states(path: str) -> dict[str, os.stat_result]:
    """Return what the system says of the database's files, of those that are there and hold anything."""
    found: dict[str, os.stat_result] = {}
    for part in _PARTS:
        try:
            facts = stat_plain(path + part)
        except FileNotFoundError:
            if part:
                continue
            raise
        if facts.st_size or not part:
            found[part] = facts
    return found


def _same(before: dict[str, os.stat_result], after: dict[str, os.stat_result]) -> bool:
    def seen(states: dict[str, os.stat_result]) -> list[tuple[str, int, int, int]]:
        return [
            (part, one.st_ino, one.st_size, one.st_mtime_ns) for part, one in sorted(states.items())
        ]

    return seen(before) == seen(after)


def _is_recent(facts: os.stat_result) -> bool:
    return 0 <= time.time() - facts.st_mtime < _QUIET


def _copy(source: str, target: str, size: int) -> None:
    with opened_plain(source) as descriptor, open(target, "wb") as copy:  # noqa: PTH123 - a path's text
        while size and (piece := os.read(descriptor, min(size, 1 << 20))):
            copy.write(piece)
            size -= len(piece)


class _Reader:
    """Asks a database of strangers, and stops where an answer has no end."""

    def __init__(self, database: sqlite3.Connection, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._text = limits.text
        self._steps = _SCHEMA_STEPS
        self._ends = time.thread_time() + limits.seconds
        self._stopped = ""
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST_STATEMENT),
            (sqlite3.SQLITE_LIMIT_COLUMN, 500),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        ):
            database.setlimit(limit, value)
        database.set_progress_handler(self._stops, 1_000)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON"):
            database.execute(f"PRAGMA {pragma}")

    def read(self, run: str | None, model: str | None, tags: tuple[str, ...]) -> InDatabase:
        """Read a run; see `read_database`.

        Raises:
            sqlite3.Error, ValueError, TypeError: It cannot be read.
        """
        try:
            return self._read(run, model, tags)
        except sqlite3.OperationalError:
            if self._stopped:
                raise ValueError(self._stopped) from None
            raise

    def _read(self, run: str | None, model: str | None, tags: tuple[str, ...]) -> InDatabase:
        with_models = self._check_tables()
        if run is None and with_models:
            query = "SELECT source_run_id FROM logged_models WHERE model_id = ?"
            run = next((str(one) for (one,) in self._rows(query, model) if one), None)
        query = "SELECT run_uuid, name, experiment_id, user_id, lifecycle_stage FROM runs WHERE run_uuid = ?"
        row = next(self._rows(query, run), None)
        if row is None:
            return InDatabase()
        names = ("run_id", "run_name", "experiment_id", "user_id", "lifecycle_stage")
        return InDatabase(
            facts={name: self._kept(one) for name, one in zip(names, row, strict=True) if one},
            params=self._texts("SELECT key, value FROM params WHERE run_uuid = ?", run),
            tags={
                name: value
                for name in tags
                for value in self._texts(
                    "SELECT key, value FROM tags WHERE run_uuid = ? AND key = ?", run, name
                ).values()
            },
            metrics=self._metrics(run),
        )

    def _check_tables(self) -> bool:
        """Refuse what is no plain table; tell whether there is one of logged models.

        A view, a virtual table or a computed column would have SQLite run what the file says.
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

    def _metrics(self, run: str | None) -> dict[str, list[tuple[int, int, float]]]:
        found: dict[str, list[tuple[int, int, float]]] = {}
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
            found[name].append((_whole(step), _whole(at), number))
        return found

    def _texts(self, query: str, *keys: str | None) -> dict[str, str]:
        return {self._kept(key): self._kept(value) for key, value in self._rows(query, *keys)}

    def _kept(self, value: object) -> str:
        """Return a value as text, and take it from the budget."""
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
    """Return a number as MLflow has it: whole, and of 64 bits."""
    whole = int(number)
    if not -_FARTHEST <= whole < _FARTHEST:
        raise ValueError("a point of a metric has a number of more than 64 bits")
    return whole
