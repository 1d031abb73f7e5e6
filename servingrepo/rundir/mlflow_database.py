"""One run in MLflow's database, `mlflow.db`: SQLite, where MLflow 3 keeps parameters, metrics and tags by default.

Tables and columns as in mlflow/store/tracking/dbmodels/models.py. The file may come from anywhere: it is opened to
read, only tables are read and no views, and a query ends after a number of steps.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from servingrepo.rundir.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["InDatabase", "read_database"]

_TABLES = ("runs", "params", "metrics", "tags")
_STEPS = 20_000_000
"""Of SQLite's virtual machine for a query: a second or two, and a million points."""
_WAIT = 2.0


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
    path: Path, *, run: str | None, model: str | None, steps: int = _STEPS
) -> InDatabase:
    """Read one run by its id, or by that of a model that it logged; nothing is written.

    Args:
        path: The database.
        run: The run's id; None where only the model's is known.
        model: The model's id.
        steps: After how many steps of SQLite's virtual machine a query ends; the database is then not read.
    """
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_WAIT)
        ) as database:
            return _read(database, run, model, steps)
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        return InDatabase(problem=f"{shown(str(path))}, MLflow's database, cannot be read: {error}")


def _read(
    database: sqlite3.Connection, run: str | None, model: str | None, steps: int
) -> InDatabase:
    database.set_progress_handler(lambda: 1, steps)  # the first call of it ends the query
    database.execute("PRAGMA trusted_schema = OFF")
    tables = {
        name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    if missing := [name for name in _TABLES if name not in tables]:
        raise ValueError(f"it has no table {', '.join(missing)}")
    if run is None and "logged_models" in tables:
        query = "SELECT source_run_id FROM logged_models WHERE model_id = ?"
        run = next((str(one) for (one,) in _rows(database, query, model) if one), None)
    query = "SELECT run_uuid, name, experiment_id, user_id, lifecycle_stage FROM runs WHERE run_uuid = ?"
    row = next(_rows(database, query, run), None)
    if row is None:
        return InDatabase()
    names = ("run_id", "run_name", "experiment_id", "user_id", "lifecycle_stage")
    metrics: dict[str, list[tuple[int, int, float]]] = {}
    query = "SELECT key, step, timestamp, value, is_nan FROM metrics WHERE run_uuid = ?"
    for key, step, time, value, is_nan in _rows(database, query, run):
        number = float("nan") if is_nan else float(value)
        metrics.setdefault(str(key), []).append((int(step), int(time), number))
    return InDatabase(
        facts={name: str(value) for name, value in zip(names, row, strict=True) if value},
        params=_texts(database, "SELECT key, value FROM params WHERE run_uuid = ?", run),
        tags=_texts(database, "SELECT key, value FROM tags WHERE run_uuid = ?", run),
        metrics=metrics,
    )


def _texts(database: sqlite3.Connection, query: str, run: str | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in _rows(database, query, run)}


def _rows(database: sqlite3.Connection, query: str, key: str | None) -> Iterator[Any]:
    yield from database.execute(query, (key,))
