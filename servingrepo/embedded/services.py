"""PredictionService and ModelService over gRPC, on top of a ServerCore.

After model_servers/{prediction_service_impl,model_service_impl}.cc. An error becomes the call's status, without a
body.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import grpc
import msgspec

from servingrepo.embedded import config
from servingrepo.embedded.calls import (
    MISSING_SPEC,
    Answer,
    count_request,
    fill_status,
    get_metadata,
    get_status,
    infer,
)
from servingrepo.embedded.core import ServerCore
from servingrepo.embedded.examples import classify, multi_inference, regress, serialized_examples
from servingrepo.embedded.inference import Model, Options, predict
from servingrepo.embedded.metrics import Metrics
from servingrepo.embedded.status import OK, Status, invalid
from servingrepo.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

__all__ = ["Parts", "handlers"]

logger = logging.getLogger(__name__)

MESSAGE_LIMIT = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}

Left = Callable[[], float | None]
"""The client's time limit in seconds, if it has one."""


class Parts(msgspec.Struct, frozen=True):
    """The parts of the server that the services need."""

    core: ServerCore
    options: Options
    metrics: Metrics


def handlers(parts: Parts) -> list[grpc.GenericRpcHandler[Any, Any]]:
    """Return the handlers of both services."""
    prediction = {
        "Predict": (partial(_infer, parts, "Predict", predict), predict_pb2.PredictRequest),
        "Classify": (
            partial(_infer, parts, "Classify", classify),
            classification_pb2.ClassificationRequest,
        ),
        "Regress": (partial(_infer, parts, "Regress", regress), regression_pb2.RegressionRequest),
        "MultiInference": (partial(_infer_many, parts), inference_pb2.MultiInferenceRequest),
        "GetModelMetadata": (
            lambda request, _: get_metadata(parts.core, request),
            get_model_metadata_pb2.GetModelMetadataRequest,
        ),
    }
    model = {
        "GetModelStatus": (
            lambda request, _: get_status(parts.core, request),
            get_model_status_pb2.GetModelStatusRequest,
        ),
        "HandleReloadConfigRequest": (
            partial(_reload, parts),
            model_management_pb2.ReloadConfigRequest,
        ),
    }
    return [
        _service("tensorflow.serving.PredictionService", prediction),
        _service("tensorflow.serving.ModelService", model),
    ]


def _service(name: str, methods: dict[str, tuple[Any, Any]]) -> grpc.GenericRpcHandler[Any, Any]:
    return grpc.method_handlers_generic_handler(
        name,
        {
            method: grpc.unary_unary_rpc_method_handler(
                partial(_answer, act),
                request_deserializer=request.FromString,
                response_serializer=_serialize,
            )
            for method, (act, request) in methods.items()
        },
    )


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _answer(
    act: Callable[[Any, Left], Answer | Status], request: Any, context: grpc.ServicerContext
) -> Answer:
    answer = act(request, context.time_remaining)
    if isinstance(answer, Status):
        _abort(context, answer)
    return answer


def _abort(context: grpc.ServicerContext, status: Status) -> NoReturn:
    # Cut by bytes, as in grpc_status_util.cc. It may not be UTF-8 any more, so grpc gets bytes.
    text: Any = status.message.encode(errors="surrogateescape")
    if len(text) > MESSAGE_LIMIT:
        text = text[:MESSAGE_LIMIT] + b"...TRUNCATED"
    context.abort(_CODES[int(status.code)], text)


def _infer(
    parts: Parts, name: str, run: Callable[[Model, Any], Answer | Status], request: Any, left: Left
) -> Answer | Status:
    """Answer and count a Predict, Classify or Regress."""
    begun = time.monotonic()
    if request.HasField("model_spec"):
        answer = infer(
            parts.core,
            request.model_spec,
            lambda model: run(model, request),
            options=parts.options,
            timeout_ms=_timeout(left),
            metrics=parts.metrics,
            api=name,
        )
    else:
        answer = MISSING_SPEC
    count_request(parts.metrics, (request.model_spec.name, name, "GRPC"), answer, since=begun)
    return answer


def _infer_many(parts: Parts, request: Any, left: Left) -> Answer | Status:
    spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
    answer = infer(
        parts.core,
        spec,
        lambda model: multi_inference(model, request),
        options=parts.options,
        timeout_ms=_timeout(left),
        metrics=parts.metrics,
    )
    if not isinstance(answer, Status):
        number = len(serialized_examples(request.input))
        parts.metrics.observe("/tensorflow/serving/request_example_counts", (spec.name,), number)
        parts.metrics.count(
            "/tensorflow/serving/request_example_count_total", (spec.name,), by=number
        )
    return answer


def _timeout(left: Left) -> int:
    seconds = left()
    return 0 if seconds is None else max(int(seconds * 1000), 0)


def _reload(parts: Parts, request: Any, _: Left) -> Answer | Status:
    names = sorted(set(request.metric_names))
    before = [parts.metrics.first_value(name) for name in names]
    wanted = config.from_message(request.config)
    if wanted.kind == "list":
        outcome = parts.core.reload(wanted)
    else:
        outcome = invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    if not outcome.ok:
        logger.error("reload refused or failed: %s", outcome)
        return outcome
    response = model_management_pb2.ReloadConfigResponse()
    fill_status(response.status, OK)
    for name, old in zip(names, before, strict=True):
        increase = parts.metrics.first_value(name) - old
        response.metric.add(name=name, int64_value_increase=increase)
    return response
