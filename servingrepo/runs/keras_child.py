"""The child process that loads a Keras model and exports it; the only part of this room that runs TensorFlow.

Called as `python -P -m servingrepo.runs.keras_child MODEL OUTPUT --parent PID [--allow-lambda] [--code FILE]…`. The
last line on stdout is JSON: {"ok": true, "keras": version} or {"ok": false, "kind": …, "message": …}.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servingrepo.children import die_with
from servingrepo.runs.keras import HDF5_MAGIC, places_of_hdf5

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUSPICIOUS = 1 << 30
_RATIO = 200
_LONGEST_CONFIG = 256 << 20
_OURS = ("keras", "tf_keras", "tensorflow", "builtins")
_LEAST_KERAS = (3, 13, 2)
"""The first Keras whose safe mode is known to work for both formats.

Before 2.13 there was no safe mode (CVE-2024-3660). It let code in `.keras` run before 3.9 (CVE-2025-1550) and 3.11.0
(CVE-2025-8747, CVE-2025-9906), and any code in HDF5 before 3.11.3 (CVE-2025-9905). It loaded vocabularies from other
files before 3.12 (CVE-2025-12058), and data and SavedModels from elsewhere before 3.13.2 (CVE-2026-1669,
CVE-2026-1462).
"""
_RUN_CODE = {
    "Lambda": "Lambda layers, whose Python code is stored in the file",
    "__lambda__": "functions whose Python code is stored in the file",
    "TFSMLayer": "a TFSMLayer, which loads and runs a SavedModel from elsewhere",
    "TorchModuleWrapper": "a TorchModuleWrapper, whose Python objects are stored in the file",
}
_LONGEST_HEADER = 1 << 16
"""The most bytes of a zip member's header, with its name and notes."""


class Refused(Exception):
    """The model must not or cannot be exported. The arguments are a kind and a message."""


def main() -> None:
    """Check the file, load the model, export it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--allow-lambda", action="store_true")
    parser.add_argument("--code", type=Path, action="append", default=[])
    given = parser.parse_args()
    die_with(given.parent)
    # What TensorFlow and Keras print must not be taken for the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        said = export(given.model, given.output, allow_lambda=given.allow_lambda, code=given.code)
    except Refused as error:
        said = {"ok": False, "kind": error.args[0], "message": error.args[1]}
    except Exception as error:  # noqa: BLE001 - the parent reports every error that Keras raises
        lines = str(error).strip().splitlines() or [""]
        message = f"{type(error).__name__}: {lines[0]}"
        said = {"ok": False, "kind": kind_of(error), "message": message}
    answer.write(json.dumps(said) + "\n")
    answer.flush()


def kind_of(error: Exception) -> str:
    """Return the kind of a failure that our checks did not find before."""
    if isinstance(error, ModuleNotFoundError):
        return "not-installed" if error.name == "keras" else "failed"
    if type(error) is ImportError:
        return "not-installed"
    # h5py raises plain OSError. Errors of the system have subclasses, such as FileNotFoundError.
    unreadable = type(error) in {OSError, zipfile.BadZipFile, json.JSONDecodeError}
    return "unreadable" if unreadable else "failed"


def export(model: Path, output: Path, *, allow_lambda: bool, code: list[Path]) -> dict[str, Any]:
    """Export a model file as a SavedModel."""
    config = checked_config(model)
    if not allow_lambda and (found := sorted(code_in(config))):
        raise Refused("code", f"it has {'; and '.join(_RUN_CODE[one] for one in found)}")
    if not code and (custom := sorted(custom_classes(config))):
        raise Refused("code", f"it needs code that is not Keras' own: {', '.join(custom[:6])}")
    import keras

    refuse_old(keras.__version__)
    for file in code:
        runpy.run_path(str(file), run_name="servingrepo_custom_code")
    loaded = keras.models.load_model(model, compile=False, safe_mode=not allow_lambda)
    loaded.export(output, verbose=False)
    return {"ok": True, "keras": keras.__version__, "name": str(loaded.name)}


def refuse_old(version: str) -> None:
    """Refuse a Keras whose safe mode lets a model's code run."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if found is None or tuple(int(one or 0) for one in found.groups()) < _LEAST_KERAS:
        least = ".".join(map(str, _LEAST_KERAS))
        raise Refused(
            "keras", f"Keras {version} is installed, and before {least} models can run code"
        )


def checked_config(model: Path) -> Any:
    """Check the sizes in a model file, and return its architecture, without unpacking it or reading weights.

    As in Keras, the name and the content decide on the format. A file that is valid in both formats is refused: we
    could check one model, and Keras could load another.
    """
    import h5py

    size = model.stat().st_size
    zipped, places = zipfile.is_zipfile(model), hdf5_in(model, size)
    if model.name.endswith(".keras"):
        if not zipped:
            what = "it is HDF5: call it .h5" if places else "it is no zip"
            raise Refused("damaged", f"it is called .keras, but {what}")
        with zipfile.ZipFile(model) as packed:
            refuse_hidden(packed, places, size)
            return config_in_zip(packed, size)
    if not model.name.endswith((".h5", ".hdf5")):
        raise Refused("name", "Keras reads files that are called .keras, .h5 or .hdf5")
    if zipped:
        what = (
            "two models at once: HDF5, and a zip behind it" if places else "a zip: call it .keras"
        )
        raise Refused("unsafe" if places else "damaged", f"it is {what}")
    with h5py.File(model, "r") as file:
        check_datasets(file, size)
        config = file.attrs.get("model_config")
        if config is None:
            raise Refused("weights", "it has weights only: the model's code is needed to build it")
        return json.loads(config)


def hdf5_in(model: Path, size: int) -> list[int]:
    """Return all offsets at which HDF5 could begin in a file: those with its signature."""
    found = []
    with model.open("rb") as file:
        for place in places_of_hdf5(size):
            file.seek(place)
            if file.read(len(HDF5_MAGIC)) == HDF5_MAGIC:
                found.append(place)
    return found


def refuse_hidden(packed: zipfile.ZipFile, places: list[int], size: int) -> None:
    """Refuse a zip with HDF5 outside of its members. Inside a member HDF5 is allowed: weights are HDF5."""
    inside = [
        (one.header_offset, one.header_offset + one.compress_size) for one in packed.infolist()
    ]
    for place in places:
        if not any(begin < place < end + _LONGEST_HEADER for begin, end in inside):
            raise Refused(
                "unsafe", f"it is two models at once: a zip, and HDF5 at byte {place:,} of {size:,}"
            )


def config_in_zip(packed: zipfile.ZipFile, size: int) -> Any:
    """Check the sizes in a `.keras` file, and return its architecture."""
    import h5py

    refuse_bomb(sum(info.file_size for info in packed.infolist()), size)
    names = set(packed.namelist())
    if "config.json" not in names or packed.getinfo("config.json").file_size > _LONGEST_CONFIG:
        raise Refused("damaged", "it has no config.json, or a far too large one")
    if "model.weights.h5" in names:
        with packed.open("model.weights.h5") as inside, h5py.File(inside, "r") as weights:
            check_datasets(weights, size)
    return json.loads(packed.read("config.json"))


def refuse_bomb(unpacked: int, size: int) -> None:
    """Refuse a file that would unpack to far more bytes than it has."""
    if unpacked > max(_SUSPICIOUS, _RATIO * size):
        raise Refused("unsafe", f"its {size:,} bytes unpack to {unpacked:,}: a bomb")


def check_datasets(file: Any, size: int) -> None:
    """Refuse datasets that are far larger than the file, and datasets in other files."""
    import h5py

    total = 0

    def walk(group: Any) -> None:
        nonlocal total
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
                raise Refused("unsafe", f"{group.name}/{name} is a link")
            one = group[name]
            if isinstance(one, h5py.Dataset):
                if one.external or one.is_virtual:
                    raise Refused("unsafe", f"{one.name} lies in another file")
                total += one.size * one.dtype.itemsize
                refuse_bomb(total, size)
            else:
                walk(one)

    walk(file)


def tables_in(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every table in a configuration, however deep it lies."""
    if isinstance(config, dict):
        yield config
    if isinstance(config, dict | list):
        for one in config.values() if isinstance(config, dict) else config:
            yield from tables_in(one)


def code_in(config: Any) -> set[str]:
    """Return the classes in a configuration that run code from this file or another one."""
    names = {str(table.get("class_name")).rpartition(">")[2] for table in tables_in(config)}
    return names & _RUN_CODE.keys()


def custom_classes(config: Any) -> set[str]:
    """Return the classes and functions in a configuration that are not Keras' own."""
    found: set[str] = set()
    for table in tables_in(config):
        if "class_name" not in table:
            continue
        module = table.get("module")
        if isinstance(module, str) and module.split(".")[0] not in _OURS:
            found.add(f"{module}.{table['class_name']}")
        # A class that is registered under a package of its own: `ours>Layer`.
        for name in (str(table.get("registered_name")), str(table["class_name"])):
            if ">" in name and name.partition(">")[0].lower() not in _OURS:
                found.add(name)
    return found


if __name__ == "__main__":
    main()
