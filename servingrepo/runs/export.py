"""Make a SavedModel from a Keras model file, in a child process, so that TensorFlow does not run in this one.

Keras' safe mode is on. To load a model with Lambda layers or code of its own would run that code, so such a model is
refused unless the user allows it.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.children import environment, python
from servingrepo.errors import (
    AmbiguousExport,
    DamagedExport,
    EngineUnavailable,
    NoSavedModel,
    ServerTimeout,
    ServingRepoError,
    StorageFailed,
    UnsafeExport,
    UnsupportedExport,
    UsageError,
)
from servingrepo.runs.listing import list_names, read_start
from servingrepo.runs.missing import REMEDIES
from servingrepo.runs.others import others
from servingrepo.runs.values import shown
from servingrepo.storage.disk import Disk, translate
from servingrepo.storage.reading import is_git_lfs_pointer
from servingrepo.storage.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Exported", "export_model", "keep"]

_MODELS = ("keras-model", "hdf5-model")
_LOG_LINES = 20
_START = 64


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A new SavedModel: the model file, the SavedModel's directory, and the version of Keras."""

    model: str
    saved_model: str
    keras: str


def export_model(
    source: Path,
    *,
    output: Path | None = None,
    allow_lambda: bool = False,
    code: Sequence[Path] = (),
    timeout: float = 600.0,
    disk: Disk | None = None,
) -> Exported:
    """Export a `.keras` or whole-model `.h5` file, or the only one in a run, as a SavedModel.

    Args:
        source: The file, or a run directory with one such file.
        output: The new directory, which must not exist. By default `saved_model` in the run, or beside the file.
        allow_lambda: Load Lambda layers, and so run their Python code, which is in the file.
        code: Python files to run first; they define and register the classes that the model needs.
        timeout: The seconds that the child may take.
        disk: The disk to write through.

    Raises:
        NoSavedModel: There is no whole model, but weights only, for example.
        AmbiguousExport: The run has several models.
        UnsupportedExport: The model needs code that was not allowed or not given, or it cannot be exported.
        DamagedExport, UnsafeExport: The model is broken, or a bomb.
        UsageError: The output exists.
        EngineUnavailable: Keras or TensorFlow is not installed.
        ServerTimeout: It took too long.
    """
    model = _model_of(source)
    target = output or (source if source.is_dir() else source.parent) / "saved_model"
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists already", hint="name another place with --output")
    disk = disk or Disk()
    try:
        with scratch(target.parent, f".{target.name}.partial-") as place:
            made = place / "saved_model"
            said = _run_child(model, made, allow_lambda=allow_lambda, code=code, timeout=timeout)
            if not said["ok"]:
                raise _refusal(model, said)
            keep(made, target, disk=disk)
    except FileExistsError:
        raise UsageError(
            f"another process made {target} meanwhile; it was left alone",
            hint="use that one, or name another place with --output",
        ) from None
    except OSError as error:
        raise translate(error, "write", target) from error
    return Exported(model=str(model), saved_model=str(target), keras=said["keras"])


def keep(made: Path, target: Path, *, disk: Disk) -> None:
    """Make a finished SavedModel durable, and only then give it its name, so that this name is always whole.

    Raises:
        FileExistsError: The name is taken.
        StorageFailed, NoSpace, NoPermission: The disk refuses; the message says if the name is there all the same.
    """
    disk.step("export.made", made)
    for folder, _, files in os.walk(made, topdown=False):
        for file in files:
            disk.sync_file(Path(folder, file))
        disk.sync_directory(Path(folder))
    try:
        disk.publish_directory(made, target, step="export")
    except (ServingRepoError, OSError) as error:
        if made.exists() or isinstance(error, FileExistsError):
            raise
        ours = error if isinstance(error, ServingRepoError) else translate(error, "write", target)
        raise type(ours)(
            f"{ours.message}; {target} was made all the same", hint=ours.hint
        ) from error


def _model_of(source: Path) -> Path:
    """Return the model file: the source itself, or the only one in a run."""
    if not source.is_dir():
        if not source.is_file():
            raise NoSavedModel(f"{source} does not exist, or is no file", hint="check the path")
        if is_git_lfs_pointer(read_start(os.path.realpath(source), _START)):
            raise DamagedExport(
                f"{source} is a Git LFS pointer, not the model itself",
                hint=REMEDIES["git-lfs-pointer"],
            )
        return source
    try:
        found = others(list_names(os.path.realpath(source)))
    except OSError as error:
        raise StorageFailed(f"{source} cannot be read: {error.strerror}") from None
    models = [one for one in found if one.kind in _MODELS]
    pointers = [one for one in found if one.kind == "git-lfs-pointer"]
    if not models and pointers:
        raise NoSavedModel(
            f"{source} has no whole Keras model, but {pointers[0]}",
            problems=[str(one) for one in pointers],
            hint=REMEDIES["git-lfs-pointer"],
        )
    if not models:
        weights = [one for one in found if one.kind in {"keras-weights", "tf-checkpoint"}]
        what = f", only {weights[0]}" if weights else ""
        raise NoSavedModel(
            f"{source} has no whole Keras model{what}",
            problems=[str(one) for one in weights],
            hint="weights need the model's code: build it, load them, and call model.export(…)"
            if weights
            else "save one there with model.save('model.keras')",
        )
    if len(models) > 1 or models[0].count > 1:
        raise AmbiguousExport(
            f"{source} has several Keras models, and nothing says which one is meant",
            problems=[str(one) for one in models],
            hint=f"name one: servingrepo export {source / models[0].path}",
        )
    return source / models[0].path


def _run_child(
    model: Path, output: Path, *, allow_lambda: bool, code: Sequence[Path], timeout: float
) -> Any:
    command: list[str | Path] = [
        *python("servingrepo.runs.keras_child"),
        model.absolute(),
        output.absolute(),
        "--parent",
        str(os.getpid()),
    ]
    command += ["--allow-lambda"] if allow_lambda else []
    command += [part for file in code for part in ("--code", file.absolute())]
    try:
        done = subprocess.run(  # nosec B603 # our own module, by the interpreter that runs us
            command,
            # The current directory may be a run: Keras must not find files there that the model names.
            cwd=output.parent,
            env={
                **environment(),
                "KERAS_BACKEND": "tensorflow",
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "CUDA_VISIBLE_DEVICES": "-1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServerTimeout(
            f"{shown(str(model))} was not exported within {timeout:.0f} s",
            hint="give more --timeout",
        ) from None
    log = "\n".join(done.stderr.decode("utf-8", "replace").splitlines()[-_LOG_LINES:])
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    try:
        return json.loads(lines[-1]) | {"log": log}
    except (IndexError, ValueError):
        raise UnsupportedExport(
            f"{shown(str(model))} cannot be exported: the process that loads it ended with {done.returncode}",
            log=log,
            hint="load it where it was trained, and call model.export(…)",
        ) from None


_REFUSALS: dict[str, tuple[type[ServingRepoError], str]] = {
    "code": (
        UnsupportedExport,
        "if you trust it: --allow-lambda runs its Lambda layers, --code FILE your own classes",
    ),
    "weights": (
        NoSavedModel,
        "build the model with the code that trained it, load them, and call model.export(…)",
    ),
    "keras": (EngineUnavailable, "pip install --upgrade keras"),
    "name": (UnsupportedExport, "give the file the name that says what it is"),
    "unsafe": (UnsafeExport, "find out who made it"),
    "damaged": (DamagedExport, "copy it again from where it is whole"),
    "unreadable": (DamagedExport, "look at the file: was its copy interrupted?"),
    "not-installed": (EngineUnavailable, "pip install tensorflow keras"),
    "failed": (UnsupportedExport, "load it where it was trained, and call model.export(…)"),
}
"""The error and the hint for each kind of refusal by the child."""

_WITH_LOG = {"not-installed", "failed"}
"""The kinds that perhaps only the child's log explains."""


def _refusal(model: Path, said: dict[str, Any]) -> ServingRepoError:
    kind, hint = _REFUSALS[said["kind"]]
    return kind(
        f"{shown(str(model))} cannot be exported: {said['message']}",
        hint=hint,
        log=said["log"] if said["kind"] in _WITH_LOG else None,
    )
