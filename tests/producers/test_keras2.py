"""What Keras 2 saves: SavedModels of whole models, HDF5, .keras, and weights in TensorFlow's format."""

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


def test_a_savedmodel_of_each_epoch_is_not_guessed_at_and_one_serves(
    keras2: Path, tmp_path: Path
) -> None:
    with pytest.raises(AmbiguousExport):
        scan_run(keras2 / "saved")
    repo = new_repository(tmp_path)
    done = repo.promote(keras2 / "saved/model-02", model="m", engine="embedded")
    assert done.export == str(keras2 / "saved/model-02")
    # Keras' own keras_metadata.pb goes along: it is part of the export.
    assert (repo.value.layout.version("m", 1) / "keras_metadata.pb").is_file()


@pytest.mark.parametrize("run", ["best", "zipped"])
def test_a_model_file_is_exported_with_keras_3_and_serves(
    keras2: Path, tmp_path: Path, run: str
) -> None:
    copied = shutil.copytree(keras2 / run, tmp_path / "run")
    done = command("export", copied, timeout=200)
    assert done.code == 0, done.err
    promoted = new_repository(tmp_path / "repo").promote(copied, model="m", engine="embedded")
    assert promoted.export == str(copied / "saved_model")


def test_weights_in_tensorflow_s_format_are_listed_and_need_the_model_s_code(keras2: Path) -> None:
    with pytest.raises(NoSavedModel) as caught:
        scan_run(keras2 / "weights")
    assert "cp-0002.ckpt: the latest TensorFlow checkpoint" in caught.value.message
    assert "tensors, all there by name and size; also cp-0001.ckpt" in caught.value.message
    assert "build the model with the code that trained it" in str(caught.value.hint)
