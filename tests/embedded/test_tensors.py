from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from servingrepo.embedded.runtime import Tensor
from servingrepo.embedded.tensors import shape_text, to_content, to_proto
from servingrepo.embedded.wire import signatures_of, varint
from servingrepo.protos import meta_graph_pb2, types_pb2


@pytest.mark.parametrize(
    ("dtype", "array", "field", "expected"),
    [
        ("DT_FLOAT", np.array([1.5, 1.5, -2], np.float32), "float_val", [1.5, 1.5, -2]),
        ("DT_DOUBLE", np.array([0.1, 0.1]), "double_val", [0.1, 0.1]),
        ("DT_INT32", np.array([-1, 7], np.int32), "int_val", [-1, 7]),
        ("DT_INT8", np.array([-128, 7], np.int8), "int_val", [-128, 7]),
        ("DT_UINT8", np.array([255], np.uint8), "int_val", [255]),
        ("DT_INT16", np.array([-3], np.int16), "int_val", [-3]),
        ("DT_UINT16", np.array([65535], np.uint16), "int_val", [65535]),
        ("DT_INT64", np.array([-(2**63)], np.int64), "int64_val", [-(2**63)]),
        ("DT_UINT32", np.array([2**32 - 1], np.uint32), "uint32_val", [2**32 - 1]),
        ("DT_UINT64", np.array([2**64 - 1], np.uint64), "uint64_val", [2**64 - 1]),
        ("DT_BOOL", np.array([True, False]), "bool_val", [True, False]),
        ("DT_HALF", np.array([1.0], np.float16), "half_val", [0x3C00]),
        ("DT_BFLOAT16", np.array([0x3F80], np.uint16), "half_val", [0x3F80]),
        ("DT_COMPLEX64", np.array([1 + 2j], np.complex64), "scomplex_val", [1, 2]),
        ("DT_COMPLEX128", np.array([1 + 2j]), "dcomplex_val", [1, 2]),
    ],
)
def test_to_proto_writes_every_element_to_the_typed_field(
    dtype: str, array: Any, field: str, expected: list[Any]
) -> None:
    tensor = Tensor(types_pb2.DataType.Value(dtype), array.shape, array.tobytes())
    proto = to_proto(tensor)
    assert list(getattr(proto, field)) == expected
    assert [dim.size for dim in proto.tensor_shape.dim] == [len(array)]
    assert proto.HasField("tensor_shape")
    assert not proto.tensor_content
    assert to_content(tensor).tensor_content == array.tobytes()


def test_to_proto_strings_and_their_content() -> None:
    tensor = Tensor(types_pb2.DT_STRING, (2,), strings=(b"a" * 300, b"\xff"))
    assert list(to_proto(tensor).string_val) == [b"a" * 300, b"\xff"]
    assert to_content(tensor).tensor_content == b"\xac\x02\x01" + b"a" * 300 + b"\xff"


def test_to_proto_scalar_and_empty() -> None:
    scalar = to_proto(Tensor(types_pb2.DT_FLOAT, (), b"\0\0\0\0"))
    assert list(scalar.float_val) == [0.0]
    assert scalar.HasField("tensor_shape")
    empty = to_proto(Tensor(types_pb2.DT_INT32, (0, 3), b""))
    assert [dim.size for dim in empty.tensor_shape.dim] == [0, 3]
    assert not empty.int_val


def test_shape_text() -> None:
    assert shape_text((2, 3)) == "[2,3]"
    assert shape_text(()) == "[]"


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")]
)
def test_varint(number: int, encoded: bytes) -> None:
    assert varint(number) == encoded


def test_signatures_of_skips_the_rest() -> None:
    meta = meta_graph_pb2.MetaGraphDef()
    meta.graph_def.node.add(name="x" * 1000)
    meta.signature_def["a"].method_name = "m"
    meta.signature_def["b"].inputs["x"].name = "x:0"
    meta.meta_info_def.tags.append("serve")
    assert signatures_of(meta.SerializeToString()) == dict(meta.signature_def)
