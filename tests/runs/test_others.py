from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoSavedModel, ServingRepoError, UnsupportedExport
from servingrepo.runs.scan import scan_run

if TYPE_CHECKING:
    from pathlib import Path

HDF5 = b"\x89HDF\r\n\x1a\n"


def zipped(*names: str) -> bytes:
    """A real zip with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 100)
    return buffer.getvalue()


def written(run: Path, **files: bytes) -> Path:
    """A run with files; `__` in a name stands for `/`."""
    for name, content in files.items():
        path = run / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return run


MLMODEL = b"""artifact_path: model
flavors:
  python_function:
    loader_module: mlflow.pytorch
  pytorch:
    model_data: data
run_id: 0123
"""
CHECKPOINT = {"ckpt-1.index": b"i", "ckpt-1.data-00000-of-00001": b"d"}
SHARDED = {
    "ckpt-2.index": b"i",
    "ckpt-2.data-00000-of-00002": b"d",
    "ckpt-2.data-00001-of-00002": b"d",
}


@pytest.mark.parametrize(
    ("files", "said", "remedy"),
    [
        (
            {"model.keras": zipped("metadata.json", "config.json", "model.weights.h5")},
            "model.keras: a Keras model",
            "load_model('{run}/model.keras').export('{run}/saved_model')",
        ),
        (
            {"models__best.h5": HDF5 + b"\0" * 500 + b"model_config\0{}"},
            "models/best.h5: a whole Keras model in HDF5",
            "load_model('{run}/models/best.h5').export",
        ),
        (
            {"best.hdf5": HDF5 + b"\0" * 500 + b"layer_names"},
            "best.hdf5: weights of a Keras model, without the model",
            "build the model with the code that trained it, load {run}/best.hdf5",
        ),
        (
            {"model.weights.h5": HDF5 + b"model_config"},
            "model.weights.h5: weights of a Keras model",
            "model.export(",
        ),
        ({"model.h5": b"<html>404"}, "model.h5: called a Keras file, but", "look at the file"),
        ({"model.keras": b""}, "model.keras: called a Keras file, but", "look at the file"),
        (
            {"model.keras": zipped("data.pkl")},
            "model.keras: called a Keras file",
            "look at the file",
        ),
        (
            {"checkpoints__checkpoint": b'model_checkpoint_path: "/old/place/ckpt-1"\n'}
            | {f"checkpoints__{name}": content for name, content in (CHECKPOINT | SHARDED).items()},
            "checkpoints/ckpt-1: the latest TensorFlow checkpoint: variables only (2 of them)",
            "load {run}/checkpoints/ckpt-1 into it, then tf.saved_model.save(model,",
        ),
        (
            SHARDED,
            "ckpt-2: the latest TensorFlow checkpoint: variables only",
            "tf.saved_model.save",
        ),
        (
            {**CHECKPOINT, "ckpt-1.meta": b"m", "graph.pbtxt": b"g"},
            "ckpt-1: the latest checkpoint of a tf.estimator",
            "estimator.export_saved_model",
        ),
        ({"model.pt": zipped("archive/data.pkl")}, "model.pt: a PyTorch model", "no PyTorch"),
        ({"last.ckpt": zipped("last/data.pkl")}, "last.ckpt: a PyTorch model", "no PyTorch"),
        (
            {"old.pth": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."},
            "old.pth: a PyTorch model",
            "no PyTorch",
        ),
        ({"pytorch_model.bin": zipped("pytorch_model/data.pkl")}, "a PyTorch model", "no PyTorch"),
        ({"model.pt": b"garbage"}, "model.pt: not what its name says", "look at the file"),
        ({"model.pkl": pickle.dumps([1])}, "model.pkl: a Python pickle", "as a SavedModel"),
        (
            {"model.safetensors": b"\x10\0\0\0\0\0\0\0{}"},
            "model.safetensors: weights",
            "load these weights",
        ),
        (
            {"m__model.tflite": b"\x1c\0\0\0TFL3"},
            "m/model.tflite: a TFLite model",
            "converted from",
        ),
        ({"model.tflite": b"\x1c\0\0\0TFL"}, "model.tflite: not what its name says", "look at"),
        ({"model.onnx": b"\x08\x07"}, "model.onnx: an ONNX model", "onnx2tf"),
        ({"frozen_graph.pb": b"\n"}, "frozen_graph.pb: a protocol buffer", "tf.saved_model.save"),
        ({"model.tar.gz": b"\x1f\x8b"}, "model.tar.gz: an archive", "promote {run}/model.tar.gz"),
        ({"MLmodel": MLMODEL}, "MLmodel: an MLflow model (python_function, pytorch)", "export the"),
        (
            {"sm__variables__variables.index": b"i", "sm__assets__v.txt": b"v"},
            "sm: a SavedModel's directories without its saved_model.pb",
            "export it again",
        ),
    ],
)
def test_a_run_without_savedmodel_says_what_to_do(
    tmp_path: Path, files: dict[str, bytes], said: str, remedy: str
) -> None:
    written(tmp_path, **files)
    with pytest.raises(NoSavedModel) as caught:
        scan_run(tmp_path)
    assert said in caught.value.message
    assert remedy.format(run=tmp_path) in str(caught.value.hint)
    assert any(said in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"00000123__export.meta": b"m", "00000123__export": b"e"}, "00000123: a SessionBundle"),
        ({"sm__saved_model.cpb": b"c"}, "sm/saved_model.cpb: a SavedModel in chunks"),
    ],
)
def test_an_export_that_no_server_loads_is_unsupported(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(UnsupportedExport, match=said):
        scan_run(written(tmp_path, **files))


def test_the_most_promising_kind_is_named_first(tmp_path: Path) -> None:
    written(tmp_path, **CHECKPOINT)
    written(tmp_path, **{"z__model.keras": zipped("config.json"), "model.pt": zipped("a/data.pkl")})
    with pytest.raises(NoSavedModel, match=r"z/model\.keras: a Keras model") as caught:
        scan_run(tmp_path)
    assert [each.split(": ")[0] for each in caught.value.problems] == [
        "z/model.keras",
        "ckpt-1",
        "model.pt",
    ]


def test_scan_when_nothing_is_a_model_then_says_what_there_is(tmp_path: Path) -> None:
    written(
        tmp_path,
        **{
            "config.json": b"{}",
            "metrics.jsonl": b"",
            "notes.txt": b"",
            "logs__events.out.tfevents.1.host": b"",
        },
    )
    with pytest.raises(NoSavedModel) as caught:
        scan_run(tmp_path)
    assert "4 files, none of them a model (TensorBoard events, a configuration, metrics)" in (
        caught.value.message
    )


def test_an_export_s_parts_are_not_listed_as_others(
    tmp_path: Path,
) -> None:
    written(
        tmp_path,
        **{
            "saved_model__saved_model.pb": b"g",
            "saved_model__fingerprint.pb": b"f",
            "saved_model__keras_metadata.pb": b"k",
            "saved_model__variables__variables.index": b"i",
            "saved_model__variables__variables.data-00000-of-00001": b"d",
            "saved_model__assets__config.json": b"{}",
            "config.yaml": b"",
            "results.json": b"{}",
            "logs__train__events.out.tfevents.1.host": b"",
            "logs__train__events.out.tfevents.2.host": b"",
        },
    )
    written(tmp_path / "checkpoints", **CHECKPOINT)
    assert [(each.kind, each.path, each.count) for each in scan_run(tmp_path).others] == [
        ("config", "config.yaml", 1),
        ("metrics", "results.json", 1),
        ("tf-checkpoint", "checkpoints/ckpt-1", 1),
        ("events", "logs/train/events.out.tfevents.1.host", 2),
    ]


def test_scan_when_a_pickle_would_run_code_then_it_does_not(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "bomb"),)

    written(tmp_path, **{"model.pkl": pickle.dumps(Bomb()), "model.pt": pickle.dumps(Bomb())})
    with pytest.raises(NoSavedModel, match="pickle"):
        scan_run(tmp_path)
    assert not (tmp_path / "bomb").exists()


@pytest.mark.timeout(20)
def test_scan_when_model_files_are_fifos_then_never_opened(tmp_path: Path) -> None:
    for name in ("model.keras", "model.pt", "checkpoint", "MLmodel", "saved_model.pb"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(NoSavedModel, match="directories but no files"):
        scan_run(tmp_path)


def test_scan_when_names_would_spoil_a_line_then_quoted(tmp_path: Path) -> None:
    (tmp_path / "a\nb").mkdir()
    (tmp_path / "a\nb" / "model.keras").write_bytes(zipped("config.json"))
    (tmp_path / os.fsdecode(b"\xff.onnx")).write_bytes(b"\x08")
    with pytest.raises(NoSavedModel) as caught:
        scan_run(tmp_path)
    told = [caught.value.message, str(caught.value.hint), *caught.value.problems]
    assert all("\n" not in line for line in told)
    for line in told:
        line.encode()


def test_scan_when_there_are_many_files_of_one_kind_then_counted(tmp_path: Path) -> None:
    written(tmp_path, **{f"epoch_{number:03}.pth": zipped("a/data.pkl") for number in range(50)})
    with pytest.raises(NoSavedModel, match=r"epoch_000\.pth: .* \(50 of them\)") as caught:
        scan_run(tmp_path)
    assert len(caught.value.problems) == 1


MAKE = """
import pathlib, sys
import keras, numpy, tensorflow as tf
run = pathlib.Path(sys.argv[1])
model = keras.Sequential([keras.layers.Input((40,)), keras.layers.Dense(300), keras.layers.Dense(3)])
model.compile("adam", "mse")
model.fit(numpy.zeros((2, 40)), numpy.zeros((2, 3)), verbose=0)
for name in ("keras", "h5", "weights", "checkpoint", "export"):
    (run / name).mkdir()
model.save(run / "keras" / "model.keras")
model.save(run / "h5" / "model.h5")
model.save_weights(run / "weights" / "model.weights.h5")
tf.train.Checkpoint(model=model).save(str(run / "checkpoint" / "ckpt"))
model.export(run / "export" / "saved_model")
"""


@pytest.mark.tf
@pytest.mark.timeout(300)
def test_scan_when_keras_itself_wrote_the_files_then_recognised(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MAKE, str(tmp_path)], check=True, capture_output=True)
    told = {}
    for name in ("keras", "h5", "weights", "checkpoint"):
        with pytest.raises(ServingRepoError) as caught:
            scan_run(tmp_path / name)
        told[name] = caught.value.problems
    assert told == {
        "keras": ("model.keras: a Keras model (zip with config.json)",),
        "h5": ("model.h5: a whole Keras model in HDF5",),
        "weights": ("model.weights.h5: weights of a Keras model, without the model",),
        "checkpoint": (
            "ckpt-1: the latest TensorFlow checkpoint: variables only; 16 tensors, all there by name and size",
        ),
    }
    assert scan_run(tmp_path / "export").kind == "child"
