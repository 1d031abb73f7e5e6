"""MLflow's layouts, written as MLflow 3.17 writes them; tests/producers has the real ones (make producers)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoSavedModel
from servingrepo.runs.measure import measure_run
from servingrepo.runs.mlflow import Limits, read_database, read_mlflow
from servingrepo.runs.scan import scan_run
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

RUN = "803c499c97404b679ec24b1156cdedb0"
MODEL = "m-1b2be793a9904226b65859f290b636c0"
MLMODEL = (
    f"flavors:\n  python_function:\n    data: data\n  tensorflow:\n    data: data\n"
    f"model_id: {MODEL}\nrun_id: {RUN}\n"
)
TABLES = """
CREATE TABLE runs (run_uuid, name, experiment_id, user_id, lifecycle_stage);
CREATE TABLE params (key, value, run_uuid);
CREATE TABLE tags (key, value, run_uuid);
CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan);
CREATE TABLE logged_models (model_id, source_run_id);
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run_in_files(experiment: Path) -> Path:
    return write(
        experiment / RUN,
        {
            "meta.yaml": f"experiment_id: '1'\nrun_id: {RUN}\nrun_name: baseline\nuser_id: root\n",
            "params/lr": "0.1",
            # log_model appends the first point again.
            "metrics/auc": "1000 0.5 0\n2000 0.75 1\n3000 0.7 2\n1000 0.5 0\n1000 0.5 0\n",
        },
    )


def model_beside(experiment: Path) -> Path:
    model = experiment / "models" / MODEL
    write_export(model / "artifacts/tf2model")
    write(
        model,
        {
            "artifacts/MLmodel": MLMODEL,
            "meta.yaml": f"experiment_id: '1'\nmodel_id: {MODEL}\nsource_run_id: {RUN}\n",
            "params/lr": "0.2",
            "metrics/auc": f"1000 0.5 0 {RUN}\n",
            "metrics/f1": f"1000 0.25 0 {RUN}\n",
        },
    )
    return model


def database(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as made, made:
        made.executescript(TABLES)
        made.execute("INSERT INTO runs VALUES (?, 'baseline', 1, 'root', 'active')", (RUN,))
        made.execute("INSERT INTO params VALUES ('lr', '0.1', ?)", (RUN,))
        made.execute("INSERT INTO tags VALUES ('mlflow.source.name', 'train.py', ?)", (RUN,))
        made.execute("INSERT INTO logged_models VALUES (?, ?)", (MODEL, RUN))
        made.executemany(
            "INSERT INTO metrics VALUES ('auc', ?, ?, ?, ?, 0)",
            [(0.7, 3000, RUN, 2), (0.5, 1000, RUN, 0), (0.75, 2000, RUN, 1)],
        )
        made.execute("INSERT INTO metrics VALUES ('loss', 0, 1000, ?, 0, 1)", (RUN,))
    return folder / "mlflow.db"


def test_the_last_value_is_that_of_the_highest_step(tmp_path: Path) -> None:
    (auc,) = measure_run(run_in_files(tmp_path)).measurements
    assert auc.count == 3
    assert (auc.last.step, auc.last.value) == (2, 0.7)
    assert auc.highest is not None
    assert (auc.highest.step, auc.highest.value) == (1, 0.75)


@pytest.mark.parametrize("below", ["", "artifacts", "artifacts/tf2model"])
def test_a_logged_model_has_its_run_s_values_too(tmp_path: Path, below: str) -> None:
    run_in_files(tmp_path)
    model = model_beside(tmp_path) / below
    read = read_mlflow(str(model))
    assert read is not None
    assert read.facts == {
        "run_id": RUN,
        "run_name": "baseline",
        "experiment_id": "1",
        "user_id": "root",
        "model_id": MODEL,
    }
    assert read.params == {"lr": "0.1"}
    assert {one.name: one.last.value for one in read.measurements} == {"auc": 0.7, "f1": 0.25}


def test_a_logged_model_without_its_run_has_its_own(tmp_path: Path) -> None:
    read = read_mlflow(str(model_beside(tmp_path)))
    assert read is not None
    assert read.facts == {"run_id": RUN, "model_id": MODEL, "experiment_id": "1"}
    assert read.params == {"lr": "0.2"}
    assert {one.name: one.last.value for one in read.measurements} == {"auc": 0.5, "f1": 0.25}


@pytest.mark.parametrize(
    ("place", "model"),
    [
        (f"mlruns/1/{RUN}", None),
        (f"mlruns/1/{RUN}/artifacts/exported/saved_model", None),
        (f"mlruns/1/models/{MODEL}", MODEL),
        (f"mlruns/1/models/{MODEL}/artifacts/tf2model", MODEL),
    ],
)
def test_a_run_in_the_database_is_read(tmp_path: Path, place: str, model: str | None) -> None:
    before = database(tmp_path).read_bytes()
    if model is not None:
        # What the database says is enough: no meta.yaml there.
        write(tmp_path / "mlruns/1/models" / MODEL, {"artifacts/MLmodel": MLMODEL})
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    read = read_mlflow(str(tmp_path / place))
    assert read is not None
    assert read.facts == {
        "run_id": RUN,
        "run_name": "baseline",
        "experiment_id": "1",
        "user_id": "root",
        "lifecycle_stage": "active",
        "mlflow.source.name": "train.py",
        **({"model_id": model} if model else {}),
    }
    assert read.params == {"lr": "0.1"}
    auc, loss = sorted(read.measurements, key=lambda one: one.name)
    assert (auc.last.value, auc.last.time, auc.count) == (0.7, 3.0, 3)
    assert loss.lowest is None
    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mlflow.db"]


def test_a_model_whose_folder_alone_names_it_is_found_in_the_database(tmp_path: Path) -> None:
    database(tmp_path)
    place = tmp_path / "mlruns/1/models" / MODEL
    place.mkdir(parents=True)
    read = read_mlflow(str(place))
    assert read is not None
    assert (read.facts["run_id"], read.facts["model_id"]) == (RUN, MODEL)


def test_a_run_unknown_to_the_database_is_no_mlflow_run(tmp_path: Path) -> None:
    database(tmp_path)
    place = tmp_path / "mlruns/1" / ("0" * 32)
    place.mkdir(parents=True)
    assert read_mlflow(str(place)) is None


@pytest.mark.parametrize(
    "broken", ["garbage", "no tables", "views", "not utf-8", "wrong types", "directory"]
)
def test_a_database_that_cannot_be_read_is_a_problem_and_no_more(
    tmp_path: Path, broken: str
) -> None:
    path = database(tmp_path)
    place = write(tmp_path / "mlruns/1" / RUN, {"meta.txt": ""})
    if broken == "garbage":
        path.write_bytes(b"x" * 5000)
    elif broken == "directory":
        path.unlink()
        path.mkdir()
    else:
        with closing(sqlite3.connect(path)) as made, made:
            made.executescript(
                {
                    "no tables": "DROP TABLE params",
                    "views": "DROP TABLE params; CREATE VIEW params AS SELECT * FROM tags",
                    "not utf-8": "UPDATE params SET value = CAST(x'ff' AS TEXT)",
                    "wrong types": "UPDATE metrics SET value = NULL",
                }[broken]
            )
    problems = measure_run(place).problems
    if broken == "directory":
        assert problems == ()
    else:
        (problem,) = problems
        assert f"{path}, MLflow's database, cannot be read" in problem


def test_a_query_that_takes_too_long_ends(tmp_path: Path) -> None:
    path = database(tmp_path)
    with closing(sqlite3.connect(path)) as made, made:
        other = [(0.5, n, "another run", n) for n in range(1000)]
        made.executemany("INSERT INTO metrics VALUES ('auc', ?, ?, ?, ?, 0)", other)
    assert not read_database(path, run=RUN, model=None).problems
    limits = Limits(seconds=0)
    assert "takes longer" in read_database(path, run=RUN, model=None, limits=limits).problems[0]


@pytest.mark.parametrize("with_database", [False, True])
def test_a_run_without_a_savedmodel_names_the_models_that_it_logged(
    tmp_path: Path, with_database: bool
) -> None:
    experiment = tmp_path / "mlruns/1"
    run = run_in_files(experiment)
    model_beside(experiment)
    if with_database:
        database(tmp_path)
        (run / "meta.yaml").unlink()
    with pytest.raises(NoSavedModel) as caught:
        scan_run(run)
    assert f"../models/{MODEL}: a model that MLflow logged for this run" in caught.value.message
    assert str(caught.value.hint).endswith(f"servingrepo scan {run}/../models/{MODEL}")


def test_flavors_are_said_wherever_mlmodel_has_them(tmp_path: Path) -> None:
    write(tmp_path, {"MLmodel": MLMODEL})
    with pytest.raises(NoSavedModel, match=r"an MLflow model \(python_function, tensorflow\)"):
        scan_run(tmp_path)


def test_exports_of_a_tfx_trainer_are_an_exporter_s(tmp_path: Path) -> None:
    for stamp in ("1584391735", "1584391736"):
        write_export(tmp_path / f"Format-Serving/export/latest/{stamp}")
    assert scan_run(tmp_path).export.endswith("/1584391736")
