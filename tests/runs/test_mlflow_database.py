"""MLflow's database as strangers may leave it: in use, in the middle of a change, and made to exhaust a reader."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from servingrepo.runs.measure import measure_run
from servingrepo.runs.mlflow import Limits, read_database
from servingrepo.testing.exports import write_export
from tests.runs.test_mlflow import RUN, database
from tests.support import command, new_repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.is_file()
    }


def run_beside(folder: Path) -> Path:
    run = folder / "mlruns/1" / RUN
    write_export(run / "artifacts/saved_model")
    return run


# in use ---------------------------------------------------------------------------------------------


def test_a_database_with_a_write_ahead_log_is_read_and_left_alone(tmp_path: Path) -> None:
    run = run_beside(tmp_path)
    path = database(tmp_path)
    with closing(sqlite3.connect(path)) as made:
        assert made.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    before = files(tmp_path)
    assert before.keys() == {"mlflow.db"}
    repo = new_repository(tmp_path / "repo")
    for name, options in (("scan", []), ("promote", ["--model", "m", "--no-smoke"])):
        done = command("--root", repo.root, name, run, *options)
        assert done.code == 0, done.err
        assert files(tmp_path) == before
    assert repo.show_version("m").origin.config == {"params/lr": "0.1"}


def test_what_is_in_the_write_ahead_log_alone_is_read(tmp_path: Path) -> None:
    run = run_beside(tmp_path)
    path = database(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as writing:
        writing.execute("PRAGMA journal_mode = WAL")
        writing.execute("PRAGMA wal_autocheckpoint = 0")
        writing.execute("UPDATE params SET value = '0.2'")
        writing.execute("INSERT INTO metrics VALUES ('auc', 0.875, 4000, ?, 3, 0)", (RUN,))
        writing.execute("BEGIN")
        writing.execute("UPDATE params SET value = 'not committed'")
        before = files(tmp_path)
        assert before["mlflow.db-wal"][0]
        found = read_database(path, run=RUN, model=None)
        assert files(tmp_path) == before
        (auc,) = [one for one in measure_run(run).measurements if one.name == "auc"]
    assert found.params == {"lr": "0.2"}
    assert (auc.last.step, auc.last.value) == (3, 0.875)


def test_a_database_during_a_change_is_not_read(tmp_path: Path) -> None:
    path = database(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("kept")
    with closing(sqlite3.connect(path, isolation_level=None)) as writing:
        writing.execute("PRAGMA cache_size = 1")
        writing.execute("BEGIN IMMEDIATE")
        rows = [(str(n), "x" * 500, RUN) for n in range(500)]
        writing.executemany("INSERT INTO params VALUES (?, ?, ?)", rows)
        journal = (tmp_path / "mlflow.db-journal").read_bytes()
        problem = read_database(path, run=RUN, model=None).problems[0]
        writing.execute("ROLLBACK")
    assert "a change of it is not finished" in problem
    # The end of a journal may name another file, which SQLite deletes when it has played the journal back.
    name = str(victim).encode()
    end = len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + journal[:8]
    (tmp_path / "mlflow.db-journal").write_bytes(journal + b"\0\0\0\0" + name + end)
    before = files(tmp_path)
    assert "a change of it is not finished" in read_database(path, run=RUN, model=None).problems[0]
    assert files(tmp_path) == before


def test_a_journal_that_was_emptied_is_no_change(tmp_path: Path) -> None:
    path = database(tmp_path)
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("PRAGMA journal_mode = PERSIST")
        made.execute("UPDATE params SET value = '0.3'")
    assert (tmp_path / "mlflow.db-journal").stat().st_size
    assert read_database(path, run=RUN, model=None).params == {"lr": "0.3"}


def test_a_log_behind_a_link_is_said_and_not_read(tmp_path: Path) -> None:
    path = database(tmp_path)
    (tmp_path / "mlflow.db-wal").symlink_to("/etc/passwd")
    assert "it is a link" in read_database(path, run=RUN, model=None).problems[0]


# made to exhaust ------------------------------------------------------------------------------------


def computed(value: str) -> Callable[[sqlite3.Connection], None]:
    def make(made: sqlite3.Connection) -> None:
        made.execute("DROP TABLE params")
        made.execute(f"CREATE TABLE params (key, run_uuid, value AS ({value}))")
        made.execute("INSERT INTO params VALUES ('lr', ?)", (RUN,))

    return make


def many_tables(made: sqlite3.Connection) -> None:
    made.execute("PRAGMA writable_schema = ON")
    made.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO sqlite_master "
        "SELECT 'table', 't' || i, 't' || i, 2, 'CREATE TABLE t' || i || ' (a)' FROM n"
    )


def wide_tables(made: sqlite3.Connection) -> None:
    columns = ", ".join(f"column_of_some_length_{number}" for number in range(1_900))
    for number in range(20):
        made.execute(f"CREATE TABLE t{number} ({columns})")


def many_points(made: sqlite3.Connection) -> None:
    made.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1200000) "
        "INSERT INTO metrics SELECT 'auc', i, i, ?, i, 0 FROM n",
        (RUN,),
    )


def much_text(made: sqlite3.Connection) -> None:
    rows = [(str(number), "x" * 900_000, RUN) for number in range(50)]
    made.executemany("INSERT INTO params VALUES (?, ?, ?)", rows)


def long_text(made: sqlite3.Connection) -> None:
    made.execute("INSERT INTO params VALUES ('a', CAST(zeroblob(100000000) AS TEXT), ?)", (RUN,))


def virtual(made: sqlite3.Connection) -> None:
    made.execute("DROP TABLE params")
    made.execute("CREATE VIRTUAL TABLE params USING fts5(key, value, run_uuid)")


BOMBS: dict[str, tuple[Callable[[sqlite3.Connection], None], str]] = {
    "a computed column": (computed("zeroblob(900000000)"), "has computed columns"),
    "many tables": (many_tables, "more tables than MLflow makes"),
    "wide tables": (wide_tables, "malformed database schema"),
    "many points": (many_points, "more than 1,000,000 points"),
    "much text": (much_text, "more than 33,554,432 characters"),
    "one long text": (long_text, "string or blob too big"),
    "a virtual table": (virtual, "has no table params"),
}

READ = """
import json, re, sys, time
from pathlib import Path
from servingrepo.runs.mlflow import read_mlflow
begin = time.process_time()
found = read_mlflow(sys.argv[1])
peak = int(re.search("VmHWM:\\\\s+([0-9]+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([found.problems, time.process_time() - begin, peak >> 10]))
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_database_that_is_a_bomb_is_said_soon(bomb: str, tmp_path: Path) -> None:
    make, why = BOMBS[bomb]
    with closing(sqlite3.connect(database(tmp_path))) as made, made:
        make(made)
    run = tmp_path / "mlruns/1" / RUN
    run.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", READ, run], capture_output=True, text=True, check=True, timeout=100
    )
    (problem,), seconds, megabytes = json.loads(done.stdout)
    assert why in problem
    assert seconds < 10
    assert megabytes < 300


def test_a_database_that_is_too_large_is_not_copied(tmp_path: Path) -> None:
    path = database(tmp_path)
    os.truncate(path, 3 << 30)
    assert "more than 1,073,741,824 bytes" in read_database(path, run=RUN, model=None).problems[0]
    limits = Limits(size=100)
    assert (
        "more than 100 bytes" in read_database(path, run=RUN, model=None, limits=limits).problems[0]
    )
