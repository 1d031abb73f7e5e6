"""PredictionService and ModelService over gRPC, on top of a ServerCore.

After model_servers/{prediction_service_impl,model_service_impl,get_model_status_impl}.cc and
servables/tensorflow/get_model_metadata_impl.cc. An error becomes the call's status; no body goes with it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

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
from servingrepo.serving.embedded import config
from servingrepo.serving.embedded.examples import classify, multi_inference, regress
from servingrepo.serving.embedded.inference import Model, Options, fill_model_spec, predict
from servingrepo.serving.embedded.status import OK, Code, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.serving.embedded.core import ServerCore
    from servingrepo.serving.embedded.states import Event

__all__ = ["handlers"]

logger = logging.getLogger(__name__)

MESSAGE_LIMIT = 1024
SIGNATURE_DEF = "signature_def"
MISSING_SPEC = Status(Code.INVALID_ARGUMENT, "Missing ModelSpec")
_CODES = {code.value[0]: code for code in grpc.StatusCode}

Answer = Any
"""A response message."""


def handlers(core: ServerCore, options: Options) -> list[grpc.GenericRpcHandler[Any, Any]]:
    """Return the handlers of both services."""
    prediction = {
        "Predict": (partial(_infer, core, options, predict), predict_pb2.PredictRequest),
        "Classify": (
            partial(_infer, core, options, classify),
            classification_pb2.ClassificationRequest,
        ),
        "Regress": (partial(_infer, core, options, regress), regression_pb2.RegressionRequest),
        "MultiInference": (
            partial(_infer_many, core, options),
            inference_pb2.MultiInferenceRequest,
        ),
        "GetModelMetadata": (
            partial(_metadata, core),
            get_model_metadata_pb2.GetModelMetadataRequest,
        ),
    }
    model = {
        "GetModelStatus": (
            partial(_model_status, core),
            get_model_status_pb2.GetModelStatusRequest,
        ),
        "HandleReloadConfigRequest": (
            partial(_reload, core),
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
    act: Callable[[Any, grpc.ServicerContext], Answer | Status],
    request: Any,
    context: grpc.ServicerContext,
) -> Answer:
    answer = act(request, context)
    if isinstance(answer, Status):
        _abort(context, answer)
    return answer


def _abort(context: grpc.ServicerContext, status: Status) -> NoReturn:
    # Cut by bytes, as there (grpc_status_util.cc), so the text may not be UTF-8 any more: grpc takes bytes.
    text: Any = status.message.encode(errors="surrogateescape")
    if len(text) > MESSAGE_LIMIT:
        text = text[:MESSAGE_LIMIT] + b"...TRUNCATED"
    context.abort(_CODES[int(status.code)], text)


def _infer(
    core: ServerCore,
    options: Options,
    run: Callable[[Model, Any], Answer | Status],
    request: Any,
    context: grpc.ServicerContext,
) -> Answer | Status:
    if not request.HasField("model_spec"):
        return MISSING_SPEC
    return _with_model(
        core, options, request.model_spec, lambda model: run(model, request), context
    )


def _infer_many(
    core: ServerCore, options: Options, request: Any, context: grpc.ServicerContext
) -> Answer | Status:
    spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
    return _with_model(core, options, spec, lambda model: multi_inference(model, request), context)


def _with_model(
    core: ServerCore,
    options: Options,
    spec: Any,
    run: Callable[[Model], Answer | Status],
    context: grpc.ServicerContext,
) -> Answer | Status:
    found = _find(core, spec)
    if isinstance(found, Status):
        return found
    with found as handle:
        left = context.time_remaining()
        timeout_ms = 0 if left is None else max(int(left * 1000), 0)
        return run(Model(handle.servable, options, handle.id.version, timeout_ms))


def _find(core: ServerCore, spec: Any) -> Any:
    choice = spec.WhichOneof("version_choice")
    return core.find(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def _metadata(core: ServerCore, request: Any, _: grpc.ServicerContext) -> Answer | Status:
    if not request.HasField("model_spec"):
        return MISSING_SPEC
    if not request.metadata_field:
        text = "GetModelMetadataRequest must specify at least one metadata_field"
        return Status(Code.INVALID_ARGUMENT, text)
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            return Status(Code.INVALID_ARGUMENT, f"Metadata field {field} is not supported")
    found = _find(core, request.model_spec)
    if isinstance(found, Status):
        return found
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with found as handle:
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in handle.servable.signatures.items():
            signatures.signature_def[key].CopyFrom(signature)
        fill_model_spec(
            response.model_spec, name=handle.id.name, signature=None, version=handle.id.version
        )
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


def _model_status(core: ServerCore, request: Any, _: grpc.ServicerContext) -> Answer | Status:
    if not request.HasField("model_spec"):
        return MISSING_SPEC
    name = request.model_spec.name
    # A label is ignored: only a number narrows the answer.
    if request.model_spec.WhichOneof("version_choice") == "version":
        version = request.model_spec.version.value
        event = core.monitor.version(name, version)
        events: tuple[Event, ...] = () if event is None else (event,)
        missing = f"Could not find version {version} of model {name}"
    else:
        events = core.monitor.versions(name)
        missing = f"Could not find any versions of model {name}"
    if not events:
        return Status(Code.NOT_FOUND, missing)
    response = get_model_status_pb2.GetModelStatusResponse()
    for event in events:
        one = response.model_version_status.add(version=event.id.version, state=int(event.state))
        _fill_status(one.status, event.health)
    return response


def _reload(core: ServerCore, request: Any, _: grpc.ServicerContext) -> Answer | Status:
    wanted = config.from_message(request.config)
    if wanted.kind == "list":
        outcome = core.reload(wanted)
    else:
        outcome = Status(
            Code.INVALID_ARGUMENT,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported",
        )
    if not outcome.ok:
        logger.error("reload refused or failed: %s", outcome)
        return outcome
    response = model_management_pb2.ReloadConfigResponse()
    _fill_status(response.status, OK)
    for name in sorted(set(request.metric_names)):
        # There are no metrics here; a metric that the real server does not know counts 0 as well.
        response.metric.add(name=name, int64_value_increase=0)
    return response


def _fill_status(message: Any, status: Status) -> None:
    message.SetInParent()
    message.error_code = int(status.code)
    message.error_message = status.message.encode(errors="replace").decode()
