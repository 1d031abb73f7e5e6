"""A tensor of resource handles in a request is refused with DirectSession's error text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import RequestRefused
from servingrepo.protos import predict_pb2, types_pb2
from tests.embedded.server_process import STEP, Server, publish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fed(**fields: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].dtype = types_pb2.DT_RESOURCE
    for name, value in fields.items():
        field = getattr(request.inputs["x"], name)
        field.add(**value) if name == "resource_handle_val" else field.CopyFrom(value)
    return request


@pytest.mark.tf
def test_resource_handles_are_refused_before_dtypes_are_compared(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    publish(tmp_path, "m/1")
    server = serve("m")
    server.wait_until_ready()
    handle = {"name": "n", "container": "c", "hash_code": 5, "maybe_type_name": "t"}
    expected = {
        # TensorFlow's own text: how many spaces stand for an empty name differs between its releases.
        "Invalid resource type hash code: 0(name: type: )": fed(),
        "Invalid resource type hash code: 5(name: n type: t)": fed(resource_handle_val=handle),
    }
    with server.client() as client:
        for text, request in expected.items():
            with pytest.raises(RequestRefused) as refused:
                client.predict(request, timeout=STEP)
            assert refused.value.code == "INVALID_ARGUMENT"
            assert " ".join(refused.value.text.split()) == text
        unknown = fed()
        unknown.output_filter.append("nope")
        with pytest.raises(RequestRefused, match="output tensor alias not found"):
            client.predict(unknown, timeout=STEP)
