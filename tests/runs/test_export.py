from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from servingrepo.errors import (
    AmbiguousExport,
    DamagedExport,
    NoSavedModel,
    ServerTimeout,
    UnsafeExport,
    UnsupportedExport,
    UsageError,
)
from servingrepo.runs.export import export_model
from tests.support import command, new_repository

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tf


@pytest.mark.timeout(240)
def test_export_makes_a_savedmodel_that_is_promoted(produced: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(produced / "keras_run/models.h5", run / "best.h5")
    done = command("export", run, "--json", timeout=120)
    assert done.code == 0, done.out
    assert done.json["result"]["saved_model"] == str(run / "saved_model")
    assert sorted(path.name for path in run.iterdir()) == ["best.h5", "saved_model"]
    repo = new_repository(tmp_path / "repo")
    promoted = repo.promote(run, model="m", engine="embedded")
    assert promoted.proof is not None
    assert promoted.proof.report.passed


@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5", "custom.keras", "custom.h5"])
def test_export_when_the_model_needs_code_is_refused(
    produced: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UnsupportedExport) as caught:
        export_model(produced / "awkward" / name, output=tmp_path / "out")
    assert "Lambda layers" in caught.value.message or "Twice" in caught.value.message
    assert "--allow-lambda" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_export_when_code_is_allowed_runs_it(produced: Path, tmp_path: Path) -> None:
    folder = produced / "awkward"
    export_model(folder / "custom.keras", output=tmp_path / "custom", code=[folder / "custom.py"])
    export_model(folder / "lambda.keras", output=tmp_path / "lambda", allow_lambda=True)
    assert (tmp_path / "custom/saved_model.pb").is_file()
    assert (tmp_path / "lambda/saved_model.pb").is_file()


def test_export_when_there_are_weights_only_says_so(produced: Path, tmp_path: Path) -> None:
    weights = produced / "keras_run/model.weights.h5"
    with pytest.raises(NoSavedModel, match="weights only"):
        export_model(weights, output=tmp_path / "out")
    with pytest.raises(NoSavedModel, match="has no whole Keras model, only ckpts/ckpt-5"):
        export_model(produced / "manager")


def test_export_when_several_models_are_there_does_not_guess(produced: Path) -> None:
    with pytest.raises(AmbiguousExport) as caught:
        export_model(produced / "awkward", output=produced / "awkward/out")
    assert len(caught.value.problems) == 2


def test_export_when_the_output_exists_leaves_it(produced: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        export_model(produced / "keras_run/models.h5", output=tmp_path)


def test_export_when_the_file_is_damaged_or_a_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    with pytest.raises(DamagedExport):
        export_model(tmp_path / "cut.h5", output=tmp_path / "out")
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("w", shape=(1 << 32,), dtype="f4", chunks=(1 << 20,), compression=9)
    with pytest.raises(UnsafeExport, match="a bomb"):
        export_model(tmp_path / "bomb.h5", output=tmp_path / "out")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["w"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(UnsafeExport, match="is a link"):
        export_model(tmp_path / "link.h5", output=tmp_path / "out")
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("w", shape=(4,), dtype="u1", external=[("/etc/passwd", 0, 4)])
    with pytest.raises(UnsafeExport, match="lies in another file"):
        export_model(tmp_path / "external.h5", output=tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("config.json", "{}")
        with packed.open("model.weights.h5", "w", force_zip64=True) as inside:
            block = np.zeros(1 << 26, np.uint8).tobytes()
            for _ in range(17):
                inside.write(block)
    with pytest.raises(UnsafeExport, match="a bomb"):
        export_model(tmp_path / "bomb.keras", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_when_it_takes_too_long_is_ended(produced: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerTimeout):
        export_model(produced / "keras_run/models.h5", output=tmp_path / "out", timeout=0.2)
    assert list(tmp_path.iterdir()) == []


def zipped_model(run: Path) -> Path:
    return run / "checkpoints/best.keras"


@pytest.mark.parametrize("name", ["two.h5", "two.hdf5", "two.keras"])
@pytest.mark.parametrize("block", [0, 512, 4096, 1 << 20])
def test_export_when_a_file_is_two_models_is_refused(
    produced: Path, tmp_path: Path, name: str, block: int
) -> None:
    """One would be checked, and the other loaded: the Lambda layer of the one hides behind the other."""
    hidden = (produced / "awkward/lambda.h5").read_bytes()
    good = zipped_model(produced / "keras_run").read_bytes()
    (tmp_path / name).write_bytes(b"#" * block + hidden + good)
    with pytest.raises(UnsafeExport, match="two models at once"):
        export_model(tmp_path / name, output=tmp_path / "out")
    with pytest.raises(NoSavedModel):
        export_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_export_takes_weights_for_a_part_of_their_zip(produced: Path, tmp_path: Path) -> None:
    """Keras stores them as they are, so HDF5 stands in a zip; by chance where HDF5 might begin."""
    with zipfile.ZipFile(zipped_model(produced / "keras_run")) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    weights = "model.weights.h5"
    before = sum(30 + len(name) + len(parts[name]) for name in parts if name != weights)
    padding = 1 << 16
    parts["config.json"] += b" " * (padding - before - 30 - len(weights))
    model = tmp_path / "model.keras"
    with zipfile.ZipFile(model, "w") as packed:
        for name in sorted(parts, key=lambda one: one == weights):
            packed.writestr(name, parts[name])
    assert model.read_bytes()[padding:].startswith(b"\x89HDF")
    export_model(model, output=tmp_path / "out")
    assert (tmp_path / "out/saved_model.pb").is_file()


def test_export_when_a_name_does_not_say_what_the_file_is(produced: Path, tmp_path: Path) -> None:
    run = produced / "keras_run"
    shutil.copy(run / "models.h5", tmp_path / "hdf5.keras")
    shutil.copy(zipped_model(run), tmp_path / "zip.h5")
    shutil.copy(zipped_model(run), tmp_path / "model.zip")
    for name, error in (
        ("hdf5.keras", DamagedExport),
        ("zip.h5", DamagedExport),
        ("model.zip", UnsupportedExport),
    ):
        with pytest.raises(error, match="call"):
            export_model(tmp_path / name, output=tmp_path / "out")


def test_export_when_a_layer_loads_another_model_is_refused(produced: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped_model(produced / "keras_run")) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    config = json.loads(parts["config.json"])
    layer = {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/x"}}
    config["config"]["layers"].append(layer)
    model = tmp_path / "model.keras"
    with zipfile.ZipFile(model, "w") as packed:
        for name, data in (parts | {"config.json": json.dumps(config).encode()}).items():
            packed.writestr(name, data)
    with pytest.raises(UnsupportedExport, match="TFSMLayer"):
        export_model(model, output=tmp_path / "out")


@pytest.mark.parametrize("version", ["2.15.0", "3.9.2", "3.13.1", "3.13", "unknown"])
def test_a_keras_whose_safe_mode_is_none_is_refused(
    produced: Path, tmp_path: Path, version: str
) -> None:
    """A fake Keras stands for an old one, which could not be installed beside this one."""
    fake = tmp_path / "fake_keras/keras"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(f"__version__ = {version!r}\n")
    start = (
        f"import sys; sys.path.insert(0, {str(fake.parent)!r}); "
        "from servingrepo.runs.keras_child import main; main()"
    )
    model = produced / "keras_run/models.h5"
    done = subprocess.run(
        [sys.executable, "-c", start, model, tmp_path / "out", "--parent", str(os.getpid())],
        capture_output=True,
        check=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["ok"], said["kind"]) == (False, "keras")
    assert "3.13.2" in said["message"]
    assert version in said["message"]
