"""The error for a run without a SavedModel. It says what is there instead, and how to get a SavedModel from it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.errors import NoSavedModel, ServingRepoError, UnsafeExport, UnsupportedExport
from servingrepo.runs.listing import SAVED_MODEL_FILES
from servingrepo.runs.values import shown
from servingrepo.storage.beneath import holds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.runs.listing import Listing
    from servingrepo.runs.values import Other, OtherKind

__all__ = ["REMEDIES", "nothing_found"]

_FROM_CODE = "build the model with the code that trained it, load {path} into it, then "

REMEDIES: dict[OtherKind, str] = {
    "backslashes": "give the archive itself as the run, or unpack it with unzip or 7z, which make directories",
    "keras-model": "servingrepo export {path} makes one, as keras.models.load_model({path!r}).export({saved_model!r})"
    " does",
    "hdf5-model": "servingrepo export {path} makes one, as keras.models.load_model({path!r}).export({saved_model!r})"
    " does (tf_keras for a model of Keras 2)",
    "git-lfs-pointer": "fetch the files where the repository was cloned: git lfs pull",
    "mlflow-output": "give the model as the run: servingrepo scan {path}",
    "session-bundle": "export the model again with TensorFlow 1 or 2: tf.saved_model.save",
    "chunked-saved-model": "save it with tf.saved_model.save and no experimental image format",
    "incomplete-export": "export it again: the export was interrupted, or copied without saved_model.pb",
    "eval-saved-model": "give the SavedModel for serving: Format-Serving/ or serving_model_dir/ beside it",
    "estimator-checkpoint": "call estimator.export_saved_model, or train with tf.estimator.LatestExporter",
    "tf-checkpoint": _FROM_CODE + "tf.saved_model.save(model, {saved_model!r})",
    "keras-weights": _FROM_CODE + "model.export({saved_model!r})",
    "graph": "save the graph with its signatures: tf.saved_model.save, or tf.compat.v1.saved_model",
    "tflite": "promote the SavedModel that it was converted from",
    "onnx": "convert it to a SavedModel, with onnx2tf for example, and promote that",
    "pytorch": "TensorFlow Serving runs no PyTorch: convert the model, for example to ONNX and then with"
    " onnx2tf to a SavedModel",
    "safetensors": "load these weights into a TensorFlow model and export that as a SavedModel",
    "pickle": "export the model as a SavedModel where it was trained",
    "archive": "give the archive itself as the run: servingrepo promote {path} --model NAME",
    "mlflow": "export the model as a SavedModel, and log that directory as an artifact of the run",
    "not-what-its-name-says": "look at the file: was its copy interrupted?",
    "link-out": "copy the run with what it links to, and give the copy: cp -rL {run} COPY",
    "unreadable": "make the directory readable for this user",
}
"""How to get a SavedModel from each kind, the most promising kind first."""

_WORTH_A_PROBLEM = 20
_TOO_HIGH = 2
"""Parts of a path such as /data: a directory so near the root has too much in it to be given as a run."""


def nothing_found(given: str, seen: Listing, others: Sequence[Other]) -> ServingRepoError:
    """Return the error for a run without a SavedModel; `given` is the run's path as the user gave it."""
    order = list(REMEDIES)
    telling = sorted(
        (other for other in others if other.kind in REMEDIES),
        key=lambda other: (order.index(other.kind), other.path.count("/"), other.path),
    )
    problems = [str(other) for other in telling[:_WORTH_A_PROBLEM]]
    if len(telling) > _WORTH_A_PROBLEM:
        problems.append(f"and {len(telling) - _WORTH_A_PROBLEM} more")
    linked = next((other for other in telling if _links_to_export(other)), None)
    if linked is not None:
        hint = _for_link(given, seen, linked.path)
        return UnsafeExport(f"{given}: {linked}", hint=hint, problems=problems)
    if not seen.complete:
        return NoSavedModel(
            f"no SavedModel in the listed part of {given}, {seen.entries:,} entries",
            hint=f"name it: --saved-model DIR, or give the directory that it lies in instead of {given}",
            problems=problems,
        )
    if not telling:
        return NoSavedModel(
            f"no SavedModel in {given}: {_what_there_is(seen, others)}",
            hint="save one there with tf.saved_model.save(model, …) or model.export(…)",
            problems=problems,
        )
    first = telling[0]
    path = _joined(given, first.path)
    saved_model = _joined(given, "saved_model")
    hint = REMEDIES[first.kind].format(path=path, saved_model=saved_model, run=shlex.quote(given))
    if first.kind == "link-out":
        hint = _for_link(given, seen, first.path)
    # A finished export that no present server loads is not missing.
    unsupported = first.kind in {"session-bundle", "chunked-saved-model"}
    kind = UnsupportedExport if unsupported else NoSavedModel
    return kind(f"no SavedModel in {given}, but {first}", hint=hint, problems=problems)


def _for_link(given: str, seen: Listing, path: str) -> str:
    """Say what to do about a link out of the run. Caches make such links to files in another directory."""
    target = dict(seen.links_out)[path]
    if holds(seen.run, target):
        return "the link leads to nothing: make the run whole, and give it again"
    both = os.path.commonpath([seen.run, target])
    copied = REMEDIES["link-out"].format(run=shlex.quote(given))
    if len(Path(both).parts) <= _TOO_HIGH:
        return copied
    link = Path(os.path.relpath(seen.run, both), path)
    export = link.parent if link.name in SAVED_MODEL_FILES else link
    return f"give the directory that holds both: {shown(both)} --saved-model {shown(str(export))}; or {copied}"


def _links_to_export(other: Other) -> bool:
    name = other.path.rpartition("/")[2]
    return other.kind == "link-out" and name.startswith(("saved_model", "export"))


def _what_there_is(seen: Listing, others: Sequence[Other]) -> str:
    """Say what a run has if it has no model of any kind."""
    files = sum(len(folder.files) for folder in seen.folders)
    if not files:
        return "it is empty" if seen.entries == 0 else "it has directories but no files"
    what = ", ".join(sorted({other.note for other in others}))
    return f"it has {files:,} files, none of them a model" + (f" ({what})" if what else "")


def _joined(given: str, path: str) -> str:
    return shown(given if path == "." else f"{given.rstrip('/')}/{path}")
