"""Directories that real producers left: what scan and promote make of them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import AmbiguousExport, NoSavedModel
from servingrepo.runs.listing import list_names
from servingrepo.runs.measure import measure_run
from servingrepo.runs.scan import scan_run
from servingrepo.runs.staleness import staleness_of
from servingrepo.testing.exports import write_export
from tests.support import bytes_read, new_repository

if TYPE_CHECKING:
    from pathlib import Path


def test_a_keras_run_is_promoted_with_config_and_metrics(produced: Path, tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    done = repo.promote(
        produced / "keras_run",
        model="m",
        smoke=False,
        require=["logs/validation/epoch_mae < 100", "validation/mae < 100"],
    )
    assert done.export == str(produced / "keras_run/saved_model")
    record = repo.show_version("m")
    assert record.origin.config == {"layers": "[2]", "lr": "0.01", "api_token": "***"}
    assert [one.verdict for one in record.gates] == ["passed", "passed"]
    kinds = {other.kind: other.path for other in scan_run(produced / "keras_run").others}
    assert kinds["hdf5-model"] == "models.h5"
    assert kinds["keras-weights"] == "model.weights.h5"
    assert kinds["keras-model"] == "checkpoints/best.keras"


def test_a_checkpoint_manager_s_checkpoints_are_listed_and_verified(produced: Path) -> None:
    with pytest.raises(NoSavedModel) as caught:
        scan_run(produced / "manager")
    said = caught.value.message
    assert "ckpts/ckpt-5: the latest TensorFlow checkpoint: variables only (3 of them)" in said
    assert "tensors, all there by name and size; also ckpt-3, ckpt-4" in said
    assert "build the model with the code that trained it" in str(caught.value.hint)


def test_a_damaged_checkpoint_is_said_to_be(produced: Path, tmp_path: Path) -> None:
    run = shutil.copytree(produced / "manager/ckpts", tmp_path / "run")
    data = run / "ckpt-5.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-7])
    with pytest.raises(NoSavedModel, match=r"damaged: ckpt-5.data-00000-of-00001 has "):
        scan_run(run)
    data.unlink()
    (run / "ckpt-4.index").write_bytes(b"x" * 100)
    (run / "checkpoint").unlink()
    with pytest.raises(NoSavedModel, match="damaged: its index cannot be read"):
        scan_run(run)


def test_weights_in_shards_are_one_finding_and_need_the_model_s_code(produced: Path) -> None:
    assert len(list((produced / "sharded").iterdir())) == 3
    with pytest.raises(NoSavedModel) as caught:
        scan_run(produced / "sharded")
    (problem,) = caught.value.problems
    assert "weights of a Keras model, without the model" in problem
    assert "build the model with the code that trained it" in str(caught.value.hint)


@pytest.mark.parametrize(("run", "name"), [("prefix", "ckpts-6"), ("accident", "checkpoints-7")])
def test_checkpoints_beside_their_directory_are_noticed(
    produced: Path, run: str, name: str
) -> None:
    with pytest.raises(NoSavedModel) as caught:
        scan_run(produced / run)
    folder = name.partition("-")[0]
    assert f"{name}: the latest" in caught.value.message
    assert f"it lies beside {folder}/, not in it" in caught.value.message


def test_an_estimator_run_of_others_is_taken_and_its_checkpoints_verified(corpus: Path) -> None:
    scan = scan_run(corpus / "tfx/estimator_run")
    assert scan.kind == "estimator-export"
    (checkpoint,) = [one for one in scan.others if one.kind == "estimator-checkpoint"]
    assert "all there by name and size" in checkpoint.details


def test_what_tfx_made_for_evaluation_is_not_taken(tmp_path: Path) -> None:
    run = tmp_path / "model/5"
    export = write_export(run / "Format-Serving")
    write_export(run / "Format-TFMA")
    scan = scan_run(run)
    assert scan.export == str(export)
    assert [one.path for one in scan.others if one.kind == "eval-saved-model"] == ["Format-TFMA"]
    shutil.rmtree(export)
    with pytest.raises(NoSavedModel, match="for evaluation"):
        scan_run(run)


def test_what_a_pusher_left_is_taken_and_two_versions_are_not_guessed(tmp_path: Path) -> None:
    write_export(tmp_path / "pushed/1584391735")
    assert scan_run(tmp_path / "pushed").kind == "child"
    write_export(tmp_path / "pushed/1584391736", offset=1)
    with pytest.raises(AmbiguousExport, match="2 SavedModels"):
        scan_run(tmp_path / "pushed")


def test_a_sagemaker_container_s_directory_is_read(tmp_path: Path) -> None:
    export = write_export(tmp_path / "ml/model/export/Servo/3")
    (tmp_path / "ml/checkpoints").mkdir()
    (tmp_path / "ml/input/config").mkdir(parents=True)
    (tmp_path / "ml/input/config/hyperparameters.json").write_text('{"lr": "0.1", "token": "x"}')
    repo = new_repository(tmp_path / "repo")
    assert repo.promote(tmp_path / "ml", model="m", smoke=False).export == str(export)
    assert repo.show_version("m").origin.config == {
        "input/config/lr": "0.1",
        "input/config/token": "***",
    }


def test_a_job_s_outputs_without_a_savedmodel_are_explained(produced: Path, tmp_path: Path) -> None:
    run = tmp_path / "job"
    for name in ("models", "checkpoints", "output"):
        (run / name).mkdir(parents=True)
    shutil.copy(produced / "keras_run/models.h5", run / "models/best.h5")
    (run / "checkpoints/last.pth").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    (run / "output/metadata.json").write_text('{"auc": 0.5}')
    with pytest.raises(NoSavedModel) as caught:
        scan_run(run)
    problems = "\n".join(caught.value.problems)
    assert "models/best.h5: a whole Keras model in HDF5" in problems
    assert "checkpoints/last.pth: a PyTorch model or checkpoint" in problems
    assert [one.name for one in new_repository(tmp_path / "r").measure(run).measurements] == [
        "output/auc"
    ]


def mlflow_run(store: Path) -> Path:
    """A run as MLflow 3.17's file store leaves it."""
    run = store / "758126702065669546/803c499c97404b679ec24b1156cdedb0"
    files = {
        "meta.yaml": "artifact_uri: file:///mlruns/1/artifacts\nexperiment_id: '758126702065669546'\n"
        "lifecycle_stage: active\nrun_id: 803c499c97404b679ec24b1156cdedb0\nrun_name: baseline\n"
        "source_version: ''\nuser_id: root\n",
        "params/lr": "0.1",
        "params/api_token": "s3cr3t",
        "metrics/validation/auc": "1795309356060 0.5 0\n1795309356062 0.75 1\n1795309356063 0.7 2\n",
        "metrics/bad": "1795309356064 nan 0\n",
        "tags/mlflow.source.name": "train.py",
        "tags/mlflow.source.git.commit": "0" * 40,
    }
    for name, text in files.items():
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return run


@pytest.mark.parametrize("below", ["", "artifacts", "artifacts/model"])
def test_an_mlflow_run_is_promoted_with_its_id_params_and_metrics(
    tmp_path: Path, below: str
) -> None:
    run = mlflow_run(tmp_path / "mlruns")
    write_export(run / "artifacts/model/data/model")
    repo = new_repository(tmp_path / "repo")
    done = repo.promote(
        run / below, model="m", smoke=False, require=["best(validation/auc) >= 0.75"]
    )
    assert done.export.endswith("/artifacts/model/data/model")
    origin = repo.show_version("m").origin
    assert origin.mlflow == {
        "experiment_id": "758126702065669546",
        "lifecycle_stage": "active",
        "run_id": run.name,
        "run_name": "baseline",
        "user_id": "root",
        "mlflow.source.name": "train.py",
        "mlflow.source.git.commit": "0" * 40,
    }
    assert origin.config == {"params/lr": "0.1", "params/api_token": "***"}
    assert "s3cr3t" not in repo.value.layout.record("m", 1).read_text()


def test_a_model_that_mlflow_logged_elsewhere_says_its_run(tmp_path: Path) -> None:
    model = tmp_path / "download"
    write_export(model / "data/model")
    (model / "MLmodel").write_text("flavors:\n  tensorflow:\n    data: data\nrun_id: 803c\n")
    repo = new_repository(tmp_path / "repo")
    repo.promote(model, model="m", smoke=False)
    assert repo.show_version("m").origin.mlflow == {"run_id": "803c"}


def test_a_meta_yaml_of_somebody_else_is_not_mlflow_s(tmp_path: Path) -> None:
    run = mlflow_run(tmp_path / "mlruns")
    other = run.rename(run.with_name("other"))
    assert not new_repository(tmp_path / "repo").measure(other).measurements


def test_no_weights_are_read(tmp_path: Path) -> None:
    run = tmp_path / "run"
    export = write_export(run / "saved_model", variables=True)
    for path in (
        *(run / "ckpt-1.data-00000-of-00001", run / "best.weights.h5", run / "model.h5"),
        *(
            run / "model.keras",
            run / "last.pth",
            export / "variables/variables.data-00000-of-00001",
        ),
    ):
        with path.open("ab") as file:
            file.truncate(1 << 30)
    shutil.copy(export / "variables/variables.index", run / "ckpt-1.index")
    scan = scan_run(run)
    staleness_of(scan, list_names(scan.run), measure_run(run))
    before = bytes_read()
    scan = scan_run(run)
    staleness_of(scan, list_names(scan.run), measure_run(run))
    assert bytes_read() - before < 4_000_000
