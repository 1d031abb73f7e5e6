"""What a real MLflow leaves: runs and logged models, in files and with its database."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoSavedModel
from servingrepo.runs.measure import measure_run
from servingrepo.runs.scan import scan_run
from tests.support import command, new_repository

if TYPE_CHECKING:
    from servingrepo.repository.records import VersionRecord

pytestmark = [pytest.mark.producers, pytest.mark.timeout(400)]

STORES = pytest.mark.parametrize("store", ["files", "default"])


def ids(mlflows: Path, store: str) -> dict[str, str]:
    found: dict[str, dict[str, str]] = json.loads((mlflows / "ids.json").read_text())
    return found[store]


def promoted(run: Path, root: Path, **options: object) -> VersionRecord:
    repo = new_repository(root)
    repo.promote(run, model="m", **{"smoke": False, **options})  # type: ignore[arg-type]
    return repo.show_version("m")


def check_provenance(record: VersionRecord, run: Path, experiment: str) -> None:
    said = record.origin.mlflow
    assert (said["run_id"], said["run_name"]) == (run.name, "baseline")
    assert said["experiment_id"] == experiment
    assert said["mlflow.source.name"].endswith("by_mlflow.py")
    assert record.origin.config.items() >= {"params/lr": "0.1", "params/api_token": "***"}.items()


@STORES
def test_a_run_with_an_export_is_promoted_with_its_id_params_and_metrics(
    mlflows: Path, tmp_path: Path, store: str
) -> None:
    made = ids(mlflows, store)
    run = Path(made["run"])
    gates = ["validation/auc >= 0.7", "best(validation/auc) >= 0.75"]
    record = promoted(run, tmp_path, require=gates, engine="embedded", smoke=True)
    check_provenance(record, run, made["experiment"])
    assert [one.verdict for one in record.gates] == ["passed", "passed"]
    (auc,) = [one for one in measure_run(run).measurements if one.name == "validation/auc"]
    # log_model writes the first point again after the last: the highest step is the last.
    assert (auc.last.step, auc.last.value, auc.count) == (2, 0.7, 3)


@STORES
@pytest.mark.parametrize("below", ["", "artifacts", "artifacts/tf2model"])
def test_a_logged_model_is_promoted_with_the_provenance_of_its_run(
    mlflows: Path, tmp_path: Path, store: str, below: str
) -> None:
    made = ids(mlflows, store)
    record = promoted(
        Path(made["module"], below), tmp_path, require=["best(validation/auc) >= 0.75"]
    )
    check_provenance(record, Path(made["run"]), made["experiment"])
    assert record.origin.mlflow["model_id"] == Path(made["module"]).name


@STORES
def test_a_logged_keras_model_is_exported_and_promoted(
    mlflows: Path, tmp_path: Path, store: str
) -> None:
    made = ids(mlflows, store)
    with pytest.raises(NoSavedModel) as caught:
        scan_run(Path(made["keras_model"]))
    assert "artifacts/data/model.keras: a Keras model" in caught.value.message
    assert "(python_function, tensorflow)" in "\n".join(caught.value.problems)
    copied = shutil.copytree(mlflows / store, tmp_path / "copied")
    model = copied / Path(made["keras_model"]).relative_to(mlflows / store)
    done = command("export", model, timeout=200)
    assert done.code == 0, done.err
    record = promoted(model, tmp_path / "repo")
    check_provenance(record, Path(made["run"]), made["experiment"])


@STORES
def test_a_run_whose_models_are_beside_it_says_where(mlflows: Path, store: str) -> None:
    bare = Path(ids(mlflows, store)["bare"])
    with pytest.raises(NoSavedModel) as caught:
        scan_run(bare)
    assert "a model that MLflow logged for this run and keeps beside it" in caught.value.message
    path = str(caught.value.hint).rpartition(" ")[2]
    assert (Path(path) / "artifacts/data/model.keras").is_file()


@STORES
def test_a_model_downloaded_from_mlflow_says_its_run(
    mlflows: Path, tmp_path: Path, store: str
) -> None:
    made = ids(mlflows, store)
    copied = shutil.copytree(made["download"], tmp_path / "download")
    record = promoted(copied, tmp_path / "repo")
    assert record.origin.mlflow["run_id"] == Path(made["run"]).name


def test_models_saved_without_a_run_are_taken_or_explained(mlflows: Path) -> None:
    assert scan_run(mlflows / "saved/module").export == str(mlflows / "saved/module/tf2model")
    with pytest.raises(NoSavedModel) as caught:
        scan_run(mlflows / "saved/keras")
    assert "(python_function, tensorflow)" in "\n".join(caught.value.problems)
