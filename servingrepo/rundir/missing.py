"""No SavedModel: say what is there instead, and how to get a SavedModel from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import NoSavedModel, ServingRepoError, UnsafeExport, UnsupportedExport
from servingrepo.rundir.values import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.rundir.look import Look
    from servingrepo.rundir.values import Other, OtherKind

__all__ = ["nothing_found"]

_FROM_CODE = "build the model with the code that trained it, load {path} into it, then "

REMEDIES: dict[OtherKind, str] = {
    "keras-model": "servingrepo export {path} makes one, as keras.models.load_model({path!r}).export({saved_model!r})"
    " does",
    "hdf5-model": "servingrepo export {path} makes one, as keras.models.load_model({path!r}).export({saved_model!r})"
    " does (tf_keras for a model of Keras 2)",
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
    "link-out": "give the link's target as the run, or copy it into the run",
    "unreadable": "make the directory readable for this user",
}
"""How to get a SavedModel from each kind, the most promising kind first."""

_WORTH_A_PROBLEM = 20


def nothing_found(given: str, seen: Look, others: Sequence[Other]) -> ServingRepoError:
    """Make the error for a run, called what the user called it, in which there is no SavedModel."""
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
        return UnsafeExport(
            f"{given}: {linked}",
            hint=REMEDIES["link-out"],
            problems=problems,
        )
    if not seen.complete:
        return NoSavedModel(
            f"no SavedModel in the part of {given} that was looked at, {seen.entries:,} entries",
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
    return _error_kind(first)(
        f"no SavedModel in {given}, but {first}",
        hint=REMEDIES[first.kind].format(path=path, saved_model=_joined(given, "saved_model")),
        problems=problems,
    )


def _error_kind(other: Other) -> type[ServingRepoError]:
    """A finished export in a form that no server of today loads is unsupported, not missing."""
    unsupported = other.kind in {"session-bundle", "chunked-saved-model"}
    return UnsupportedExport if unsupported else NoSavedModel


def _links_to_export(other: Other) -> bool:
    name = other.path.rpartition("/")[2]
    return other.kind == "link-out" and name.startswith(("saved_model", "export"))


def _what_there_is(seen: Look, others: Sequence[Other]) -> str:
    """Say what a run has in which nothing is a model of any kind."""
    files = sum(len(folder.files) for folder in seen.folders)
    if not files:
        return "it is empty" if seen.entries == 0 else "it has directories but no files"
    what = ", ".join(sorted({other.note for other in others}))
    return f"it has {files:,} files, none of them a model" + (f" ({what})" if what else "")


def _joined(given: str, path: str) -> str:
    return shown(given if path == "." else f"{given.rstrip('/')}/{path}")
