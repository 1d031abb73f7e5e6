"""A fake TensorFlow Serving: real gRPC, answers written by the test, for what no real model would do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from servingrepo.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
    service_modules,
)
from servingrepo.servers.client import ServingClient
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["VERSION", "FakeServing", "Status", "serve_fake"]

Status = tuple[str, int, str]
"""A state, an error code and its text."""

VERSION = 7
"""The one version that the fake has."""


class FakeServing:
    """What the fake answers; tests change its attributes. `requests` is what it was asked.

    Of `states` and `outputs` each request takes one, and the last one stays. Methods are gRPC's.
    """

    def __init__(self, definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self.states: list[Status] = [("AVAILABLE", 0, "")]
        self.version = VERSION
        self.outputs: list[dict[str, Any]] = []
        self.error: tuple[grpc.StatusCode, str] | None = None
        self.errors_of_examples: tuple[grpc.StatusCode, str] | None = None
        self.scores: list[list[float]] = []
        self.values: list[float] = []
        self.requests: list[Any] = []

    def GetModelStatus(self, _: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Answer as the attributes say."""
        state, code, text = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state == "NOT_FOUND":
            context.abort(grpc.StatusCode.NOT_FOUND, text)
        reply = get_model_status_pb2.GetModelStatusResponse()
        one = reply.model_version_status.add(version=VERSION)
        one.state = get_model_status_pb2.ModelVersionStatus.State.Value(state)
        one.status.error_code = code
        one.status.error_message = text
        return reply

    def GetModelMetadata(self, *_: Any) -> Any:  # noqa: N802 - gRPC's name
        """Answer as the attributes say."""
        reply = get_model_metadata_pb2.GetModelMetadataResponse()
        reply.model_spec.version.value = self.version
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, definition in self.definitions.items():
            signatures.signature_def[key].CopyFrom(definition)
        reply.metadata["signature_def"].Pack(signatures)
        return reply

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Answer as the attributes say."""
        self.requests.append(request)
        if self.error is not None:
            context.abort(*self.error)
        reply = predict_pb2.PredictResponse()
        reply.model_spec.version.value = self.version
        outputs = self.outputs.pop(0) if len(self.outputs) > 1 else self.outputs[0]
        for alias, tensor in outputs.items():
            reply.outputs[alias].CopyFrom(tensor)
        return reply

    def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Answer as the attributes say."""
        self.requests.append(request)
        if self.errors_of_examples is not None:
            context.abort(*self.errors_of_examples)
        reply = classification_pb2.ClassificationResponse()
        reply.model_spec.version.value = self.version
        for scores in self.scores:
            one = reply.result.classifications.add()
            for score in scores:
                one.classes.add(score=score)
        return reply

    def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        """Answer as the attributes say."""
        self.requests.append(request)
        if self.errors_of_examples is not None:
            context.abort(*self.errors_of_examples)
        reply = regression_pb2.RegressionResponse()
        reply.model_spec.version.value = self.version
        for value in self.values:
            reply.result.regressions.add(value=value)
        return reply


@contextmanager
def serve_fake(fake: Any) -> Iterator[ServingClient]:
    """Serve the fake, an object with some of gRPC's methods, on a loopback port and yield a client of it."""
    prediction, model = service_modules()
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    prediction.add_PredictionServiceServicer_to_server(
        _Services(fake, prediction.PredictionServiceServicer), server
    )
    model.add_ModelServiceServicer_to_server(_Services(fake, model.ModelServiceServicer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with ServingClient(Endpoint("127.0.0.1", port)) as client:
            yield client
    finally:
        server.stop(None).wait()


class _Services:
    """The fake's methods, and the generated class's refusals for all others."""

    def __init__(self, fake: Any, generated: Any) -> None:
        self._fake = fake
        self._generated = generated()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name, None) or getattr(self._generated, name)
