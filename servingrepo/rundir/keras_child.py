"""The child process that loads a Keras model and exports it; the only part of this room that runs TensorFlow.

Called as `python -m servingrepo.rundir.keras_child MODEL OUTPUT --parent PID [--allow-lambda] [--code FILE]…`. The
last line on stdout is JSON: {"ok": true, "keras": version} or {"ok": false, "kind": …, "message": …}.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import zipfile
from pathlib import Path
from typing import Any

from servingrepo.rundir.children import die_with

_SUSPICIOUS = 1 << 30
_RATIO = 200
_LONGEST_CONFIG = 256 << 20
_OURS = ("keras", "tf_keras", "tensorflow", "builtins")


class Refused(Exception):
    """The model must not or cannot be exported: kind and message."""


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
    except Exception as error:  # noqa: BLE001 - whatever Keras raises is what the parent has to say
        lines = str(error).strip().splitlines() or [""]
        said = {"ok": False, "kind": "failed", "message": f"{type(error).__name__}: {lines[0]}"}
    answer.write(json.dumps(said) + "\n")
    answer.flush()


def export(model: Path, output: Path, *, allow_lambda: bool, code: list[Path]) -> dict[str, Any]:
    """Export a model file as a SavedModel."""
    config = checked_config(model)
    if not allow_lambda and has_lambda(config):
        raise Refused("code", "it has Lambda layers, whose Python code is stored in the file")
    if not code and (custom := sorted(custom_classes(config))):
        raise Refused("code", f"it needs code that is not Keras' own: {', '.join(custom[:6])}")
    import keras

    for file in code:
        runpy.run_path(str(file), run_name="servingrepo_custom_code")
    loaded = keras.models.load_model(model, compile=False, safe_mode=not allow_lambda)
    loaded.export(output, verbose=False)
    return {"ok": True, "keras": keras.__version__, "name": str(loaded.name)}


def checked_config(model: Path) -> Any:
    """Return the architecture, after the file's sizes were looked at; nothing is unpacked and no weights are read."""
    import h5py

    size = model.stat().st_size
    if zipfile.is_zipfile(model):
        with zipfile.ZipFile(model) as packed:
            refuse_bomb(sum(info.file_size for info in packed.infolist()), size)
            names = set(packed.namelist())
            if (
                "config.json" not in names
                or packed.getinfo("config.json").file_size > _LONGEST_CONFIG
            ):
                raise Refused("damaged", "it has no config.json, or a far too large one")
            if "model.weights.h5" in names:
                with packed.open("model.weights.h5") as inside, h5py.File(inside, "r") as weights:
                    check_datasets(weights, size)
            return json.loads(packed.read("config.json"))
    with h5py.File(model, "r") as file:
        check_datasets(file, size)
        config = file.attrs.get("model_config")
        if config is None:
            raise Refused("weights", "it has weights only: the model's code is needed to build it")
        return json.loads(config)


def refuse_bomb(unpacked: int, size: int) -> None:
    """Refuse what would unpack to far more than it has."""
    if unpacked > max(_SUSPICIOUS, _RATIO * size):
        raise Refused("unsafe", f"its {size:,} bytes unpack to {unpacked:,}: a bomb")


def check_datasets(file: Any, size: int) -> None:
    """Refuse datasets that are far larger than the file, and such as lie in other files."""
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


def has_lambda(config: Any) -> bool:
    """Tell whether a configuration holds Python code."""
    if isinstance(config, dict):
        if config.get("class_name") in {"Lambda", "__lambda__"}:
            return True
        return any(has_lambda(one) for one in config.values())
    return isinstance(config, list) and any(has_lambda(one) for one in config)


def custom_classes(config: Any) -> set[str]:
    """Return the classes and functions in a configuration that are not Keras' own."""
    if isinstance(config, list):
        return set().union(*map(custom_classes, config))
    if not isinstance(config, dict):
        return set()
    found = set().union(*map(custom_classes, config.values()))
    if "class_name" not in config:
        return found
    module = config.get("module")
    if isinstance(module, str) and module.split(".")[0] not in _OURS:
        found.add(f"{module}.{config['class_name']}")
    # Registered under a package of somebody's: `ours>Layer`.
    for name in (str(config.get("registered_name")), str(config["class_name"])):
        if ">" in name and name.partition(">")[0].lower() not in _OURS:
            found.add(name)
    return found


if __name__ == "__main__":
    main()
