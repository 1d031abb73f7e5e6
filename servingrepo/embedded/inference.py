"""Predict: from a request and a loaded model to a response or an error.

After servables/tensorflow/predict_util.cc and tensorflow/cc/saved_model/util.cc (GetInputValues), with the same order
of checks. Like the real server it does not compare shapes and dtypes with the signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.embedded.runtime import Session
from servingrepo.embedded.status import Code, Status
from servingrepo.embedded.tensors import to_content, to_proto
from servingrepo.protos import predict_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.embedded.runtime import Feed

__all__ = ["DEFAULT_SIGNATURE", "Model", "Options", "fill_model_spec", "predict"]

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHODS = (
    "tensorflow/serving/predict",
    "tensorflow/serving/classify",
    "tensorflow/serving/regress",
)


class Options(msgspec.Struct, frozen=True):
    """`--enable_signature_method_name_check`, `--enable_serialization_as_tensor_content`."""

    check_method_name: bool = False
    tensor_content: bool = False


class Model(msgspec.Struct, frozen=True):
    """A loaded model; `version` is None while it warms up."""

    session: Session
    options: Options
    version: int | None = None
    timeout_ms: int = 0


def fill_model_spec(spec: Any, *, name: str, signature: str | None, version: int | None) -> None:
    """Fill the model_spec of a response with the signature and the version."""
    spec.name = name
    if signature is not None:
        spec.signature_name = signature or DEFAULT_SIGNATURE
    if version is not None:
        spec.version.value = version


def predict(model: Model, request: Any) -> Any | Status:
    """Return the PredictResponse of the model to a PredictRequest."""
    key = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.session.signatures.get(key)
    if signature is None:
        text = f'Serving signature key "{key}" not found.'
        return Status(Code.FAILED_PRECONDITION, text)
    if model.options.check_method_name and signature.method_name not in PREDICT_METHODS:
        text = (
            "Expected prediction signature method_name to be one of {"
            f"{', '.join(PREDICT_METHODS)}}}. Was: {signature.method_name}"
        )
        return Status(Code.INTERNAL, text)
    feeds = _feeds(model.session, signature, request.inputs)
    if isinstance(feeds, Status):
        return feeds
    aliases = _outputs(signature, request.output_filter)
    if isinstance(aliases, Status):
        return aliases
    fetches = [signature.outputs[alias].name for alias in aliases]
    tensors = model.session.run(feeds, fetches, timeout_ms=model.timeout_ms)
    if isinstance(tensors, Status):
        return tensors
    response = predict_pb2.PredictResponse()
    fill_model_spec(
        response.model_spec, name=request.model_spec.name, signature=key, version=model.version
    )
    convert = to_content if model.options.tensor_content else to_proto
    for alias, tensor in zip(aliases, tensors, strict=True):
        response.outputs[alias].CopyFrom(convert(tensor))
    return response


def _feeds(session: Session, signature: Any, inputs: Any) -> list[tuple[str, Feed]] | Status:
    sent, declared = sorted(inputs), sorted(signature.inputs)
    if len(sent) > len(declared) or (len(sent) < len(declared) and not signature.defaults):
        text = (
            f"input size does not match signature: {len(sent)}!={len(declared)} "
            f"len({_braced(sent)}) != len({_braced(declared)}). "
            f"Sent extra: {_braced(sorted(set(sent) - set(declared)))}. "
            f"Missing but required: {_braced(sorted(set(declared) - set(sent)))}."
        )
        return Status(Code.INVALID_ARGUMENT, text)
    feeds = []
    used = []
    for alias in declared:
        name = signature.inputs[alias].name
        if alias in inputs:
            proto = inputs[alias]
            used.append(alias)
        elif alias in signature.defaults:
            proto = signature.defaults[alias]
        else:
            text = (
                f"Signature input alias: {alias}(feed name: {name}) not found in request and no default "
                f"value provided. Inputs expected to be in the request {_braced(sent)}, or default "
                f"input alias set: {','.join(sorted(signature.defaults))}"
            )
            return Status(Code.INVALID_ARGUMENT, text)
        feed = session.decode(proto)
        if feed is None:
            return Status(Code.INVALID_ARGUMENT, f"tensor parsing error: {alias}")
        feeds.append((name, feed))
    if len(used) != len(sent):
        text = (
            f"Inputs contains invalid name. Used request inputs: {','.join(used)}, "
            f"request input: {','.join(sent)}"
        )
        return Status(Code.INVALID_ARGUMENT, text)
    return feeds


def _outputs(signature: Any, wanted: Iterable[str]) -> list[str] | Status:
    chosen: list[str] = []
    for alias in wanted:
        if alias not in signature.outputs:
            text = (
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the "
                f"set {_braced(sorted(signature.outputs))}."
            )
            return Status(Code.INVALID_ARGUMENT, text)
        if alias in chosen:
            return Status(Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or sorted(signature.outputs)


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(names) + "}"
