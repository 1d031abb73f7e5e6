"""A gRPC client of TensorFlow Serving: it sends one request, and returns a value or raises our error.

It decides nothing, retries nothing, and does not import TensorFlow.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

import grpc

from servingrepo.errors import EndpointUnreachable, RequestRefused, ServerTimeout
from servingrepo.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    service_modules,
)
from servingrepo.servers.security import TlsMismatch, explain
from servingrepo.servers.states import ModelMetadata, VersionStatus

if TYPE_CHECKING:
    from servingrepo.servers.states import Endpoint

__all__ = ["ServingClient", "SpeaksNoGrpc"]

_BREAK = re.compile(r"\s*\n\s*")
"""Line breaks, which TensorFlow's messages have, and our sentences do not."""
_OTHER_PROTOCOL = ("http1.x server", "Failed parsing HTTP/2")
"""gRPC's words for a server that answers in another protocol."""


class SpeaksNoGrpc(EndpointUnreachable):
    """Something answers there, but not in gRPC: waiting does not help."""


class ServingClient:
    """One channel to one endpoint. Use it as a context manager; every call has a timeout in seconds.

    Raises from every call:
        EndpointUnreachable: Nothing answers there in gRPC.
        ServerTimeout: No answer within the timeout.
        RequestRefused: The server answered with an error.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._channel = _open(endpoint)
        prediction, model = service_modules()
        self._prediction = prediction.PredictionServiceStub(self._channel)
        self._model = model.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def status(
        self, model: str, version: int | None = None, *, timeout: float
    ) -> tuple[VersionStatus, ...]:
        """Return the state of a version, or of all that the server remembers, highest number first.

        The tuple is empty for an unknown model or version, and for a configured model without a version: the server
        answers NOT_FOUND to both (get_model_status_impl.cc).
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        try:
            reply = self._call(self._model, "GetModelStatus", request, timeout)
        except RequestRefused as refused:
            if refused.code == "NOT_FOUND":
                return ()
            raise
        names = get_model_status_pb2.ModelVersionStatus.State
        return tuple(
            VersionStatus(
                version=one.version,
                state=names.Name(one.state),
                code=one.status.error_code,
                error=_BREAK.sub(" ", one.status.error_message),
            )
            for one in reply.model_version_status
        )

    def metadata(
        self, model: str, version: int | None = None, *, label: str | None = None, timeout: float
    ) -> ModelMetadata:
        """Return the version that answers for this model, version or label, and its signatures."""
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        if label is not None:
            request.model_spec.version_label = label
        request.metadata_field.append("signature_def")
        reply = self._call(self._prediction, "GetModelMetadata", request, timeout)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        return ModelMetadata(
            version=reply.model_spec.version.value, signatures=dict(signatures.signature_def)
        )

    def answers(self, model: str, version: int, *, timeout: float) -> bool:
        """Tell whether this version answers requests.

        AVAILABLE in `status` does not prove that: if a version is unloaded while it waits in LOADING behind a long
        request, the server may call it AVAILABLE for ever (basic_manager.cc).
        """
        try:
            self.metadata(model, version, timeout=timeout)
        except RequestRefused as refused:
            if refused.code == "NOT_FOUND":
                return False
            raise
        return True

    def predict(self, request: Any, *, timeout: float) -> Any:
        """Send a PredictRequest, return the PredictResponse."""
        return self._call(self._prediction, "Predict", request, timeout)

    def classify(self, request: Any, *, timeout: float) -> Any:
        """Send a ClassificationRequest, return the ClassificationResponse."""
        return self._call(self._prediction, "Classify", request, timeout)

    def regress(self, request: Any, *, timeout: float) -> Any:
        """Send a RegressionRequest, return the RegressionResponse."""
        return self._call(self._prediction, "Regress", request, timeout)

    def reload(self, config: Any, *, timeout: float) -> None:
        """Replace the server's whole config with a ModelServerConfig.

        The server answers when every *new* model has a version that loaded or failed. It does not wait for new
        versions of known models, nor for unloads (model_service_impl.cc). After a time-out the config is unknown,
        because the server still carries the call out.
        """
        request = model_management_pb2.ReloadConfigRequest()
        request.config.CopyFrom(config)
        self._call(self._model, "HandleReloadConfigRequest", request, timeout)

    def _call(self, service: Any, name: str, request: Any, timeout: float) -> Any:
        headers = self.endpoint.security.headers or None
        spec = getattr(request, "model_spec", None)  # a reload is about no single model
        what = f"{name} for model {spec.name}" if spec is not None else name
        try:
            return getattr(service, name)(request, timeout=max(timeout, 0.001), metadata=headers)
        except grpc.RpcError as error:
            raise _translated(error, self.endpoint, what, timeout) from error


def _open(endpoint: Endpoint) -> grpc.Channel:
    security = endpoint.security
    options: list[tuple[str, int | str]] = [
        # Embeddings and images often exceed gRPC's default limit of 4 MB.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # Connect to a restarted server at once, not after a growing back-off.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A proxy in the environment is for public hosts, not for model servers.
        ("grpc.enable_http_proxy", 0),
    ]
    if endpoint.name:
        # An address of a name: certificates and proxies know the name only.
        options.append(("grpc.ssl_target_name_override", endpoint.name))
        options.append(("grpc.default_authority", endpoint.name))
    if not security.uses_tls:
        return grpc.insecure_channel(str(endpoint), options=options)
    credentials = grpc.ssl_channel_credentials(security.ca, security.key, security.certificate)
    return grpc.secure_channel(str(endpoint), credentials, options=options)


def _translated(
    error: Any, endpoint: Endpoint, what: str, timeout: float
) -> EndpointUnreachable | ServerTimeout | RequestRefused:
    """Return our error for a grpc.RpcError."""
    code = error.code().name
    text = _BREAK.sub(" ", error.details() or "")
    if code == "UNAVAILABLE" and not text.startswith("Model labels does not init yet"):
        explained = explain(endpoint.host, endpoint.port, endpoint.security, text)
        if explained is not None:
            why, hint = explained
            return TlsMismatch(f"no connection to {endpoint}: {why}", hint=hint)
        other = any(sign in text for sign in _OTHER_PROTOCOL)
        return (SpeaksNoGrpc if other else EndpointUnreachable)(
            f"no TensorFlow Serving answers at {endpoint}: {text or code}",
            hint="check the host and the gRPC port (8500 by default, not the REST port 8501)",
        )
    if code == "DEADLINE_EXCEEDED":
        return ServerTimeout(
            f"{endpoint} did not answer {what} within {timeout:.3g} s",
            hint="a model may be loading, or an earlier reload hangs; see the server's log",
        )
    return RequestRefused(f"{endpoint} refused {what}: {code}: {text}", code=code, text=text)
