"""What tf.estimator of TensorFlow 2.15 leaves in a model_dir."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import AmbiguousExport, NoSavedModel
from servingrepo.runs.scan import scan_run
from tests.support import command, new_repository

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.producers, pytest.mark.timeout(400)]


def newest(exporter: Path) -> Path:
    return max((path for path in exporter.iterdir() if path.name.isdigit()), key=lambda p: p.name)


@pytest.mark.parametrize(("run", "exporter"), [("latest", "export/latest"), ("by_hand", "export")])
def test_the_newest_export_is_promoted_and_serves(
    estimators: Path, tmp_path: Path, run: str, exporter: str
) -> None:
    repo = new_repository(tmp_path)
    # The embedded server answers classify and regress of its signatures with tf.Examples.
    done = repo.promote(estimators / run, model="m", engine="embedded", require=["loss < 1000"])
    assert done.export == str(newest(estimators / run / exporter))
    record = repo.show_version("m")
    assert record.tensorflow.startswith("2.15")
    assert [one.verdict for one in record.gates] == ["passed"]
    (checkpoint,) = [
        one for one in scan_run(estimators / run).others if one.kind == "estimator-checkpoint"
    ]
    assert "tensors, all there by name and size" in checkpoint.details


def test_exports_of_two_exporters_are_listed_and_one_is_chosen(
    estimators: Path, tmp_path: Path
) -> None:
    run = estimators / "best_and_latest"
    with pytest.raises(AmbiguousExport) as caught:
        scan_run(run)
    best, last = (newest(run / "export" / name) for name in ("best_exporter", "latest"))
    assert [one.partition(":")[0] for one in caught.value.problems] == [
        str(one.relative_to(run)) for one in (best, last)
    ]
    repo = new_repository(tmp_path)
    done = repo.promote(run, model="m", saved_model=best.relative_to(run), smoke=False)
    assert done.export == str(best)


def test_a_model_dir_without_an_export_says_how_to_make_one(estimators: Path) -> None:
    done = command("scan", estimators / "bare")
    assert done.code == NoSavedModel.exit_code
    assert "model.ckpt-40: the latest checkpoint of a tf.estimator: variables only" in done.err
    assert "tensors, all there by name and size; also model.ckpt-0, model.ckpt-20" in done.err
    assert (
        "call estimator.export_saved_model, or train with tf.estimator.LatestExporter" in done.err
    )


def test_an_export_that_was_killed_is_passed_over(estimators: Path, tmp_path: Path) -> None:
    run = shutil.copytree(estimators / "latest", tmp_path / "run")
    last = newest(run / "export/latest")
    last.rename(last.with_name(f"temp-{last.name}"))
    scan = scan_run(run)
    assert scan.export == str(newest(run / "export/latest"))
    assert "incomplete-export" in {other.kind for other in scan.others}


def test_what_a_trainer_of_tfx_for_estimators_left_is_taken_without_its_evaluation(
    estimators: Path, tmp_path: Path
) -> None:
    run = estimators / "tfx"
    done = new_repository(tmp_path).promote(run, model="m", smoke=False)
    assert done.export == str(newest(run / "Format-Serving/export/latest"))
    (evaluation,) = [one for one in scan_run(run).others if one.kind == "eval-saved-model"]
    assert evaluation.path == f"Format-TFMA/{newest(run / 'Format-TFMA').name}"
