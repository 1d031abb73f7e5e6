"""Classify, Regress and MultiInference: requests that carry tf.Examples.

After servables/tensorflow/{classifier,regressor,multi_inference,util}.cc. The input is always a string tensor [N] of
serialized Examples, even if the signature has another one.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from servingrepo.embedded.inference import DEFAULT_SIGNATURE
from servingrepo.embedded.json_writer import as_single
from servingrepo.embedded.status import OK, Code, Status, invalid
from servingrepo.embedded.tensors import as_array, dtype_name, shape_text
from servingrepo.protos import (
    classification_pb2,
    inference_pb2,
    regression_pb2,
    tensor_pb2,
    types_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servingrepo.embedded.inference import Model
    from servingrepo.embedded.runtime import Tensor

__all__ = ["classify", "debug_string", "multi_inference", "regress", "serialized_examples"]

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"
CLASSIFY_MAX_OUTPUTS = 2
MATRIX = 2

# A text is on one line, so no text looks like this. Only TensorProto has decimals.
_DECIMAL = re.compile(r"^( *(float|double|scomplex|dcomplex)_val: )(.+)$", re.MULTILINE)
_SINGLE = ("float", "scomplex")


def classify(model: Model, request: Any) -> Any | Status:
    """Return the ClassificationResponse of the model to a request."""
    return _single(model, request, classification_pb2.ClassificationResponse(), CLASSIFY)


def regress(model: Model, request: Any) -> Any | Status:
    """Return the RegressionResponse of the model to a request."""
    return _single(model, request, regression_pb2.RegressionResponse(), REGRESS)


def multi_inference(model: Model, request: Any) -> Any | Status:
    """Return the MultiInferenceResponse of the first task's model to a request."""
    signatures = _task_signatures(model, request.tasks)
    if isinstance(signatures, Status):
        return signatures
    names = sorted({name for one in signatures for name in _fetches(one[1], one[0]).values()})
    feeds = sorted({one[1].inputs[INPUTS].name for one in signatures})
    ran = _run(model, request.input, feeds, names)
    if isinstance(ran, Status):
        return ran
    tensors, count = ran
    response = inference_pb2.MultiInferenceResponse()
    for task, (method, signature) in zip(request.tasks, signatures, strict=True):
        result = response.results.add()
        outputs = {key: tensors[name] for key, name in _fetches(signature, method).items()}
        if method == CLASSIFY:
            filled = _fill_classes(result.classification_result, outputs, count)
        else:
            filled = _fill_values(result.regression_result, outputs, count)
        if not filled.ok:
            return filled
        model.fill_spec(result.model_spec, task.model_spec)
    return response


def _single(model: Model, request: Any, response: Any, method: str) -> Any | Status:
    key = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.session.signatures.get(key)
    if signature is None:
        return invalid(f"No signature was found with the name: {key}")
    checked = _check(signature, method, check_name=model.options.check_method_name)
    if not checked.ok:
        return checked
    fetches = _fetches(signature, method)
    ran = _run(model, request.input, [signature.inputs[INPUTS].name], list(fetches.values()))
    if isinstance(ran, Status):
        return ran
    tensors, count = ran
    outputs = {key: tensors[name] for key, name in fetches.items()}
    response.result.SetInParent()
    fill = _fill_classes if method == CLASSIFY else _fill_values
    filled = fill(response.result, outputs, count)
    if not filled.ok:
        return filled
    model.fill_spec(response.model_spec, request.model_spec)
    return response


def _task_signatures(model: Model, tasks: Any) -> list[tuple[str, Any]] | Status:
    """Check the tasks one after the other; return method and signature of each."""
    found: list[tuple[str, Any]] = []
    seen: set[str] = set()
    for task in tasks:
        key = task.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = model.session.signatures.get(key)
        wrong = {
            "Found ModelSpec with an empty model name.": not task.model_spec.name,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.": (
                task.model_spec.name != tasks[0].model_spec.name
            ),
            f"Duplicate evaluation of signature: {key}": key in seen,
            f"Requested signature not found in model graph: {key}": signature is None,
        }
        text = next((text for text, applies in wrong.items() if applies), None)
        if text is not None:
            return invalid(text)
        if task.method_name not in (CLASSIFY, REGRESS):
            text = f"Unsupported signature method_name: {task.method_name}"
            return Status(Code.UNIMPLEMENTED, text)
        checked = _check(signature, task.method_name, check_name=model.options.check_method_name)
        if not checked.ok:
            return checked
        seen.add(key)
        found.append((task.method_name, signature))
    return found


def _check(signature: Any, method: str, *, check_name: bool) -> Status:
    """Check a signature's structure (PreProcessClassification, PreProcessRegression)."""
    if check_name and signature.method_name != method:
        return invalid(
            f"Expected {_kind(method)} signature method_name to be {method}. "
            f"Was: {signature.method_name}"
        )
    if len(signature.inputs) != 1:
        return invalid("Expected one input Tensor.")
    outputs = len(signature.outputs)
    if method == REGRESS and outputs != 1:
        return invalid("Expected one output Tensor.")
    if not 1 <= outputs <= CLASSIFY_MAX_OUTPUTS:
        return invalid(f"Expected one or two output Tensors, found {outputs}")
    if INPUTS not in signature.inputs:
        return invalid(
            f"No {_kind(method)} inputs found in SignatureDef: {debug_string(signature)}"
        )
    if _fetches(signature, method):
        return OK
    if method == REGRESS:
        return invalid(f"No regression outputs found in SignatureDef: {debug_string(signature)}")
    return invalid(
        "Expected classification signature outputs to contain at least one of "
        f'"{CLASSES}" or "{SCORES}". Signature was: {debug_string(signature)}'
    )


def _kind(method: str) -> str:
    return "classification" if method == CLASSIFY else "regression"


def _fetches(signature: Any, method: str) -> dict[str, str]:
    """Return the tensor names of the outputs that the method uses, by their key."""
    keys = (CLASSES, SCORES) if method == CLASSIFY else (OUTPUTS,)
    return {key: signature.outputs[key].name for key in keys if key in signature.outputs}


def _run(
    model: Model, request_input: Any, feeds: list[str], fetches: list[str]
) -> tuple[dict[str, Tensor], int] | Status:
    serialized = serialized_examples(request_input)
    if not serialized:
        return invalid("Input is empty.")
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=serialized)
    proto.tensor_shape.dim.add(size=len(serialized))
    feed = model.session.decode(proto)
    tensors = model.run([(name, feed) for name in feeds], fetches)
    if isinstance(tensors, Status):
        return tensors
    return dict(zip(fetches, tensors, strict=True)), len(serialized)


def serialized_examples(request_input: Any) -> list[bytes]:
    """Return the Examples of a request's Input as bytes, each with the context before it."""
    match request_input.WhichOneof("kind"):
        case "example_list":
            return [one.SerializeToString() for one in request_input.example_list.examples]
        case "example_list_with_context":
            part = request_input.example_list_with_context
            # Bytes after bytes is protobuf's merge: the example's own feature comes last and wins.
            context = part.context.SerializeToString()
            return [context + one.SerializeToString() for one in part.examples]
        case _:
            return []


def _fill_classes(result: Any, outputs: Mapping[str, Tensor], count: int) -> Status:
    for key, tensor in outputs.items():
        checked = _check_matrix(key, tensor, count)
        if not checked.ok:
            return checked
    widths = [tensor.shape[1] for tensor in outputs.values()]
    if widths[0] != widths[-1]:
        return invalid(
            f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}"
        )
    width = widths[0]
    labels = outputs[CLASSES].strings if CLASSES in outputs else None
    scores = as_array(outputs[SCORES]).tolist() if SCORES in outputs else None
    for i in range(count):
        row = result.classifications.add()
        for j in range(i * width, (i + 1) * width):
            one = row.classes.add()
            if labels is not None:
                one.label = labels[j].decode(errors="replace")
            if scores is not None:
                one.score = scores[j]
    return OK


def _check_matrix(key: str, tensor: Tensor, count: int) -> Status:
    dtype = types_pb2.DT_STRING if key == CLASSES else types_pb2.DT_FLOAT
    if len(tensor.shape) != MATRIX:
        return invalid(
            "Expected Tensor shape: [batch_size num_classes] but got " + shape_text(tensor.shape)
        )
    if tensor.dtype != dtype:
        return invalid(
            f"Expected {key} Tensor of {dtype_name(dtype)}. Got: {dtype_name(tensor.dtype)}"
        )
    if tensor.shape[0] != count:
        return invalid(f"Expected {key} output batch size of {count}. Got: {tensor.shape[0]}")
    return OK


def _fill_values(result: Any, outputs: Mapping[str, Tensor], count: int) -> Status:
    tensor = outputs[OUTPUTS]
    shape = tensor.shape
    if not (len(shape) == 1 or (len(shape) == MATRIX and shape[1] == 1)):
        return invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            + shape_text(shape)
        )
    if shape[0] != count:
        return invalid(f"Input batch size did not match output batch size: {count} vs. {shape[0]}")
    if tensor.dtype != types_pb2.DT_FLOAT:
        return invalid(f"Expected output Tensor of DT_FLOAT.  Got: {dtype_name(tensor.dtype)}")
    for value in as_array(tensor).tolist():
        result.regressions.add().value = value
    return OK


def debug_string(message: Any) -> str:
    """Return a message as C++'s Message::DebugString prints it, for error texts that quote it.

    After google/protobuf/text_format.cc and strtod.cc: it escapes all but ASCII, and numbers are as short as printf's
    %g makes them, where Python writes 0.0 and 1000000.0.
    """
    return _DECIMAL.sub(_in_cpp, text_format.MessageToString(message, as_utf8=False))


def _in_cpp(line: re.Match[str]) -> str:
    field, kind, text = line.groups()
    value = float(text)
    if math.isfinite(value):
        parse = as_single if kind in _SINGLE else float
        few, many = (6, 9) if kind in _SINGLE else (15, 17)
        value = parse(value)
        text = f"{value:.{few}g}"
        if parse(float(text)) != value:
            text = f"{value:.{many}g}"
    return f"{field}{text}"
