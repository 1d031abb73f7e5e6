"""Predict: from a request and a loaded model to a response or an error.

After servables/tensorflow/predict_util.cc and tensorflow/cc/saved_model/util.cc (GetInputValues), with the same order
of checks. Like the real server it does not compare shapes and dtypes with the signature.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.embedded.runtime import Session
from servingrepo.embedded.status import Code, Status, invalid
from servingrepo.embedded.tensors import to_content, to_proto
from servingrepo.protos import predict_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.embedded.runtime import Feed, Tensor

__all__ = ["DEFAULT_SIGNATURE", "Model", "Options", "predict"]

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
    """A loaded model for one request; `version` is None while it warms up.

    `timed` gets the beginning of each run in TensorFlow that succeeded, on the monotonic clock.
    """

    session: Session
    options: Options
    version: int | None = None
    timeout_ms: int = 0
    timed: Callable[[float], None] | None = None

    def run(
        self, feeds: Sequence[tuple[str, Feed]], fetches: Sequence[str]
    ) -> list[Tensor] | Status:
        """Run the graph."""
        begun = time.monotonic()
        tensors = self.session.run(feeds, fetches, timeout_ms=self.timeout_ms)
        if self.timed is not None and not isinstance(tensors, Status):
            self.timed(begun)
        return tensors

    def fill_spec(self, spec: Any, asked: Any) -> None:
        """Fill the model_spec of a response to a request, whose one is `asked`."""
        spec.name = asked.name
        spec.signature_name = asked.signature_name or DEFAULT_SIGNATURE
        if self.version is not None:
            spec.version.value = self.version


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
    tensors = model.run(feeds, fetches)
    if isinstance(tensors, Status):
        return tensors
    response = predict_pb2.PredictResponse()
    model.fill_spec(response.model_spec, request.model_spec)
    convert = to_content if model.options.tensor_content else to_proto
    for alias, tensor in zip(aliases, tensors, strict=True):
        response.outputs[alias].CopyFrom(convert(tensor))
    return response


def _feeds(session: Session, signature: Any, inputs: Any) -> list[tuple[str, Feed]] | Status:
    sent, declared = sorted(inputs), sorted(signature.inputs)
    if len(sent) > len(declared) or (len(sent) < len(declared) and not signature.defaults):
        return invalid(
            f"input size does not match signature: {len(sent)}!={len(declared)} "
            f"len({_braced(sent)}) != len({_braced(declared)}). "
            f"Sent extra: {_braced(sorted(set(sent) - set(declared)))}. "
            f"Missing but required: {_braced(sorted(set(declared) - set(sent)))}."
        )
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
            return invalid(
                f"Signature input alias: {alias}(feed name: {name}) not found in request and no default "
                f"value provided. Inputs expected to be in the request {_braced(sent)}, or default "
                f"input alias set: {','.join(sorted(signature.defaults))}"
            )
        feed = session.decode(proto)
        if feed is None:
            return invalid(f"tensor parsing error: {alias}")
        feeds.append((name, feed))
    if len(used) != len(sent):
        return invalid(
            f"Inputs contains invalid name. Used request inputs: {','.join(used)}, "
            f"request input: {','.join(sent)}"
        )
    return feeds


def _outputs(signature: Any, wanted: Iterable[str]) -> list[str] | Status:
    chosen: list[str] = []
    for alias in wanted:
        if alias not in signature.outputs:
            return invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the "
                f"set {_braced(sorted(signature.outputs))}."
            )
        if alias in chosen:
            return invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or sorted(signature.outputs)


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(names) + "}"
