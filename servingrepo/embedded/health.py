"""grpc.health.v1.Health, for --enable_grpc_healthcheck_service.

After model_servers/server.cc and gRPC's default_health_check_service.cc: two bare names and the whole server are
always SERVING, in spite of failed models. This file reads and writes the two messages itself, because they have one
field each.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from servingrepo.savedmodel.wire import LENGTH_DELIMITED, fields

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["health_handler"]

KNOWN = ("", "ModelService", "PredictionService")
SERVICE = 1  # HealthCheckRequest.service
SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x03"  # HealthCheckResponse.status = 1, 3


def health_handler() -> grpc.GenericRpcHandler[Any, Any]:
    """Return the handler of Check and Watch."""
    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(_check),
            "Watch": grpc.unary_stream_rpc_method_handler(_watch),
        },
    )


def _check(request: bytes, context: grpc.ServicerContext) -> bytes:
    if _service(request, context) not in KNOWN:
        context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
    return SERVING


def _watch(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    ended = threading.Event()
    known = _service(request, context) in KNOWN
    if context.add_callback(ended.set):
        yield SERVING if known else SERVICE_UNKNOWN
        # Nothing ever changes; the stream stays open until the client leaves or the server stops.
        ended.wait()


def _service(request: bytes, context: grpc.ServicerContext) -> str:
    name, end = b"", 0
    try:
        for number, start, content, end in fields(request, 0, len(request)):
            if number == SERVICE and request[start] & 7 == LENGTH_DELIMITED:
                name = request[content:end]
        if end != len(request):
            raise ValueError("it is cut short, or no message")
        return name.decode()
    except (ValueError, IndexError):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "could not parse request")
