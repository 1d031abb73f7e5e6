"""TensorProtos without numpy: what goes in comes out, and agrees with TensorFlow's own encoding."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.protos import tensor_pb2
from servingrepo.smoke.tensors import FLOATING, INTEGERS, fill_tensor, make_tensor, read_tensor

NUMBERS = sorted(FLOATING | INTEGERS)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_make_tensor_of_every_number_is_read_back(dtype: str) -> None:
    tensor = read_tensor(make_tensor(dtype, [1, 3], [0, 1, 2]))
    assert tensor.shape == (1, 3)
    assert tensor.values == (0, 1, 2)
    assert tensor.dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("string", (b"", b"a\0b")),
        ("bool", (True, False)),
        ("complex64", (1 + 2j, -1j)),
        ("complex128", (0.1 + 0j, complex(0, math.inf))),
        ("float16", (0.5, math.inf)),
        ("bfloat16", (1.5, -math.inf)),
        ("uint64", (2**64 - 1, 0)),
        ("int64", (-(2**63), 2**63 - 1)),
    ],
)
def test_make_tensor_of_other_values_is_read_back(dtype: str, values: tuple[object, ...]) -> None:
    assert read_tensor(make_tensor(dtype, [2], values)).values == values  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int8", 128),
        ("uint8", -1),
        ("int32", 2**31),
        ("uint64", 2**64),
        ("int64", "1"),
        ("string", 1.0),
        ("resource", 0),
        ("variant", 0),
        ("nonsense", 0),
    ],
)
def test_make_tensor_of_a_value_that_does_not_fit_is_refused(dtype: str, value: object) -> None:
    with pytest.raises(ValueError, match=dtype):
        make_tensor(dtype, [1], [value])  # type: ignore[list-item]


def test_fill_tensor_sends_one_value_whatever_the_shape() -> None:
    message = fill_tensor("float32", [100, 100], 1.0)
    assert len(message.float_val) == 1
    assert read_tensor(message).values == (1.0,) * 10_000
    assert read_tensor(fill_tensor("float32", [0, 3], 1.0)).values == ()


@pytest.mark.parametrize(
    ("dtype", "shape", "content"),
    [("float32", [2], b"123"), ("string", [2], b"\x01"), ("string", [1], b"\x05a")],
)
def test_read_tensor_whose_content_does_not_fit_is_refused(
    dtype: str, shape: list[int], content: bytes
) -> None:
    message = make_tensor(dtype, shape, [])
    message.tensor_content = content
    with pytest.raises(ValueError, match=r"bytes|end too early"):
        read_tensor(message)


def test_read_tensor_that_claims_to_be_endless_is_refused() -> None:
    message = make_tensor("float32", [1 << 40], [1.0])
    with pytest.raises(ValueError, match="too large"):
        read_tensor(message)


@given(st.binary(max_size=80))
def test_read_tensor_of_any_message_is_a_tensor_or_refused(data: bytes) -> None:
    message = tensor_pb2.TensorProto()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return
    with suppress(ValueError):
        read_tensor(message)


_RUN = """
import json, sys
import tensorflow as tf
found = {}
for name in json.loads(sys.argv[1]):
    tensor = tf.cast(tf.constant([[0.0, 1.0, 2.0]]), name) if not name.startswith("q") else None
    if tensor is None:
        continue
    found[name] = tf.make_tensor_proto(tensor.numpy()).SerializeToString().hex()
found["string"] = tf.make_tensor_proto([[b"a", b"", b"cc"]]).SerializeToString().hex()
print(json.dumps(found))
"""


@pytest.mark.tf
def test_read_tensor_of_what_tensorflow_writes_gives_its_values() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(NUMBERS)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) > 10
    for name, written in found.items():
        tensor = read_tensor(tensor_pb2.TensorProto.FromString(bytes.fromhex(written)))
        wanted = (b"a", b"", b"cc") if name == "string" else (0, 1, 2)
        assert (tensor.dtype, tensor.shape, tensor.values) == (name, (1, 3), wanted)
