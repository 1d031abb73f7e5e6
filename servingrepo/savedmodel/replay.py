"""Would a server answer a recorded request? Its names, dtypes and structure against the signatures.

What is looked at, and in which order, is from servables/tensorflow/{predict_util,classifier,regressor,
multi_inference_helper}.cc; shapes are not among it (docs/decisions.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from servingrepo.savedmodel.compatibility import say_shape
from servingrepo.savedmodel.signatures import dtype_name
from servingrepo.savedmodel.tensors import ELEMENT_SIZES
from servingrepo.texts import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from servingrepo.savedmodel.values import Signature, TensorSpec

__all__ = ["Known", "replay_problems"]

DEFAULT_KEY = "serving_default"
_REF = 100
_MOST_ELEMENTS = 1 << 62
_CLASSIFY = "tensorflow/serving/classify"
_REGRESS = "tensorflow/serving/regress"
_APIS = {"classify_log": _CLASSIFY, "regress_log": _REGRESS}


class Known(NamedTuple):
    """Signatures by key, and the dtypes that the graph wants by signature and alias."""

    signatures: Mapping[str, Signature]
    fed: Mapping[tuple[str, str], str]


def replay_problems(kind: str, request: Any, known: Known) -> tuple[list[str], list[str]]:
    """Return why a server would refuse a request, and what is odd about it that a server accepts.

    Args:
        kind: The member of PredictionLog that it is from.
        request: The request's message.
        known: What the export answers.
    """
    if kind == "predict_log":
        return _predict(request, known)
    if kind == "multi_inference_log":
        return list(_multi_inference(request, known)), []
    problems = list(_examples(request.model_spec.signature_name, _APIS[kind], known))
    if not _example_count(request.input):
        problems.append("it has no tf.Example")
    return problems, []


def _predict(request: Any, known: Known) -> tuple[list[str], list[str]]:
    key = request.model_spec.signature_name or DEFAULT_KEY
    signature = known.signatures.get(key)
    if signature is None:
        return [_no_signature(key)], []
    specs = {one.alias: one for one in signature.inputs}
    sent = set(request.inputs)
    problems = []
    if extra := sorted(sent - specs.keys()):
        problems.append(f"signature {key} has no input {some(extra)}")
    if missing := sorted(
        alias for alias, one in specs.items() if alias not in sent and not one.has_default
    ):
        problems.append(f"it does not have input {some(missing)} of signature {key}")
    notes: list[str] = []
    for alias in sorted(sent & specs.keys()):
        tensor = request.inputs[alias]
        wanted = known.fed.get((key, alias), specs[alias].dtype)
        problems += [f"input {alias} {text}" for text in _tensor_problems(tensor, wanted)]
        notes += _shape_notes(tensor, specs[alias])
    outputs = {one.alias for one in signature.outputs}
    wished = list(request.output_filter)
    if unknown := sorted(set(wished) - outputs):
        problems.append(f"signature {key} has no output {some(unknown)}")
    if len(set(wished)) < len(wished):
        problems.append("its output_filter names an output twice")
    return problems, notes


def _tensor_problems(tensor: Any, wanted: str) -> Iterator[str]:
    """Yield why a TensorProto cannot be fed: Tensor::FromProto, and the dtype of what it is fed to."""
    dtype = dtype_name(tensor.dtype)
    if tensor.dtype > _REF or dtype != wanted:
        yield f"is {dtype}{'_ref' if tensor.dtype > _REF else ''}, and the graph wants {wanted}"
        return
    sizes = (
        [] if tensor.tensor_shape.unknown_rank else [one.size for one in tensor.tensor_shape.dim]
    )
    if min(sizes, default=0) < 0:
        yield "has a dimension of unknown size"
        return
    count = math.prod(sizes)
    if count >= _MOST_ELEMENTS:
        yield f"has {count} elements"
        return
    size = ELEMENT_SIZES.get(tensor.dtype)
    if tensor.tensor_content and size is not None and len(tensor.tensor_content) != count * size:
        yield f"has {len(tensor.tensor_content)} bytes for {count} elements of {size}"


def _shape_notes(tensor: Any, spec: TensorSpec) -> Iterator[str]:
    sizes = tuple(one.size for one in tensor.tensor_shape.dim)
    if spec.shape is None or tensor.tensor_shape.unknown_rank:
        return
    fits = len(sizes) == len(spec.shape) and all(
        wanted is None or wanted == size for size, wanted in zip(sizes, spec.shape, strict=True)
    )
    if not fits:
        yield (
            f"input {spec.alias} is {say_shape(sizes)}, not {say_shape(spec.shape)} as its signature says; "
            "servers do not look at that, operations may"
        )


def _multi_inference(request: Any, known: Known) -> Iterator[str]:
    names = [one.model_spec.name for one in request.tasks]
    if not names:
        yield "it has no task"
        return
    if not all(names):
        yield "a task does not name the model"
    elif len(set(names)) > 1:
        yield f"its tasks name several models: {some(sorted(set(names)))}"
    keys = [one.model_spec.signature_name or DEFAULT_KEY for one in request.tasks]
    if len(set(keys)) < len(keys):
        yield "two tasks name the same signature"
    for task, key in zip(request.tasks, keys, strict=True):
        if task.method_name not in {_CLASSIFY, _REGRESS}:
            yield f"a task has the method {task.method_name!r}"
        else:
            yield from _examples(key, task.method_name, known)
    if not _example_count(request.input):
        yield "it has no tf.Example"


def _examples(named: str, api: str, known: Known) -> Iterator[str]:
    """Yield why a signature cannot be asked through the Classify or Regress API."""
    key = named or DEFAULT_KEY
    signature = known.signatures.get(key)
    if signature is None:
        yield _no_signature(key)
        return
    inputs = [one.alias for one in signature.inputs]
    outputs = {one.alias for one in signature.outputs}
    short = api.rpartition("/")[2]
    if inputs != ["inputs"]:
        yield f"the {short} API takes signatures with one input, inputs; {key} has {some(inputs) or 'none'}"
    elif (wanted := known.fed.get((key, "inputs"), signature.inputs[0].dtype)) != "string":
        yield f"the {short} API feeds strings, and the graph wants {wanted} for signature {key}"
    if api == _REGRESS and outputs != {"outputs"}:
        yield f"the regress API takes signatures with one output, outputs; {key} has {some(sorted(outputs))}"
    if api == _CLASSIFY and (len(outputs) not in {1, 2} or not outputs & {"classes", "scores"}):
        yield f"the classify API takes signatures with classes and scores; {key} has {some(sorted(outputs))}"


def _example_count(given: Any) -> int:
    kind = given.WhichOneof("kind")
    return len(getattr(given, kind).examples) if kind is not None else 0


def _no_signature(key: str) -> str:
    return f"there is no signature {key}"
