"""Calls of the core that REST and gRPC share: messages in, a message or a Status out.

After model_servers/get_model_status_impl.cc and servables/tensorflow/get_model_metadata_impl.cc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servingrepo.embedded.inference import Model, Options
from servingrepo.embedded.status import Code, Status, invalid
from servingrepo.protos import get_model_metadata_pb2, get_model_status_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.embedded.core import ServerCore
    from servingrepo.embedded.metrics import Metrics
    from servingrepo.embedded.states import Event

__all__ = [
    "MISSING_SPEC",
    "Answer",
    "count_request",
    "fill_status",
    "find",
    "get_metadata",
    "get_status",
    "infer",
]

SIGNATURE_DEF = "signature_def"
MISSING_SPEC = invalid("Missing ModelSpec")

Answer = Any
"""A response message."""


def find(core: ServerCore, spec: Any) -> Any:
    """Return a handle of the version that a ModelSpec names, or the error."""
    choice = spec.WhichOneof("version_choice")
    return core.find(
        spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
    )


def infer(
    core: ServerCore,
    spec: Any,
    run: Callable[[Model], Answer | Status],
    *,
    options: Options,
    timeout_ms: int,
    metrics: Metrics,
    api: str = "",
) -> Answer | Status:
    """Run a request on its model. `api` is the label of the time in TensorFlow."""
    found = find(core, spec)
    if isinstance(found, Status):
        return found

    def ran(begun: float) -> None:
        labels = (spec.name, api, "TF1")
        metrics.observe("/tensorflow/serving/runtime_latency", labels, since=begun)

    with found as handle:
        timed = ran if api else None
        return run(Model(handle.servable, options, handle.id.version, timeout_ms, timed))


def count_request(
    metrics: Metrics, labels: tuple[str, str, str], answer: object, *, since: float
) -> None:
    """Count a request that has its answer, with its time if it succeeded: by model, API and entrypoint."""
    code = answer.code if isinstance(answer, Status) else Code.OK
    if code is Code.OK:
        metrics.observe("/tensorflow/serving/request_latency", labels, since=since)
    metrics.count("/tensorflow/serving/request_count", (labels[0], code.name))


def get_metadata(core: ServerCore, request: Any) -> Answer | Status:
    """Answer a GetModelMetadataRequest."""
    if not request.HasField("model_spec"):
        return MISSING_SPEC
    if not request.metadata_field:
        return invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            return invalid(f"Metadata field {field} is not supported")
    found = find(core, request.model_spec)
    if isinstance(found, Status):
        return found
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with found as handle:
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in handle.servable.signatures.items():
            signatures.signature_def[key].CopyFrom(signature)
        response.model_spec.name = handle.id.name
        response.model_spec.version.value = handle.id.version
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


def get_status(core: ServerCore, request: Any) -> Answer | Status:
    """Answer a GetModelStatusRequest."""
    if not request.HasField("model_spec"):
        return MISSING_SPEC
    name = request.model_spec.name
    # The real server ignores a label here.
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
        fill_status(one.status, event.health)
    return response


def fill_status(message: Any, status: Status) -> None:
    """Fill a StatusProto."""
    message.SetInParent()
    message.error_code = int(status.code)
    message.error_message = status.message.encode(errors="replace").decode()
