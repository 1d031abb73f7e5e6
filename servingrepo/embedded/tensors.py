"""TensorFlow's tensors and TensorProto: dtypes, names, and outputs as messages.

After tensorflow/core/framework/tensor.cc (AsProtoField, AsProtoTensorContent): every element is written, without
run-length compression. It does not import TensorFlow, and copies whole arrays where the wire format allows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from servingrepo.embedded.wire import LENGTH_DELIMITED, varint
from servingrepo.protos import tensor_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.embedded.runtime import Tensor

__all__ = ["as_array", "dtype_name", "shape_text", "to_content", "to_proto"]

_NUMPY: dict[int, Any] = {
    types_pb2.DT_FLOAT: np.float32,
    types_pb2.DT_DOUBLE: np.float64,
    types_pb2.DT_INT32: np.int32,
    types_pb2.DT_UINT8: np.uint8,
    types_pb2.DT_INT16: np.int16,
    types_pb2.DT_INT8: np.int8,
    types_pb2.DT_COMPLEX64: np.complex64,
    types_pb2.DT_INT64: np.int64,
    types_pb2.DT_BOOL: np.bool_,
    types_pb2.DT_QINT8: np.int8,
    types_pb2.DT_QUINT8: np.uint8,
    types_pb2.DT_QINT32: np.int32,
    types_pb2.DT_BFLOAT16: np.uint16,
    types_pb2.DT_QINT16: np.int16,
    types_pb2.DT_QUINT16: np.uint16,
    types_pb2.DT_UINT16: np.uint16,
    types_pb2.DT_COMPLEX128: np.complex128,
    types_pb2.DT_HALF: np.uint16,
    types_pb2.DT_UINT32: np.uint32,
    types_pb2.DT_UINT64: np.uint64,
    types_pb2.DT_INT4: np.int8,
    types_pb2.DT_UINT4: np.uint8,
    types_pb2.DT_FLOAT8_E5M2: np.uint8,
    types_pb2.DT_FLOAT8_E4M3FN: np.uint8,
}
"""The memory layout of each dtype; half and bfloat16 as bit patterns."""

# The fields of TensorProto that are packed as in memory, by number: float_val, double_val, scomplex_val and
# dcomplex_val.
_PACKED = {
    types_pb2.DT_FLOAT: 5,
    types_pb2.DT_DOUBLE: 6,
    types_pb2.DT_COMPLEX64: 9,
    types_pb2.DT_COMPLEX128: 12,
}
_FIELD = {
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_HALF: "half_val",
    types_pb2.DT_BFLOAT16: "half_val",
}
_FLOAT8 = (types_pb2.DT_FLOAT8_E5M2, types_pb2.DT_FLOAT8_E4M3FN)


def dtype_name(dtype: int) -> str:
    """Return the enum's name, such as DT_FLOAT."""
    return str(types_pb2.DataType.Name(dtype))


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as TensorShape::DebugString prints it, such as [2,3]."""
    return "[" + ",".join(map(str, shape)) + "]"


def as_array(tensor: Tensor) -> Any:
    """Return the elements of a tensor of numbers as a flat numpy array, without a copy."""
    return np.frombuffer(tensor.data, dtype=_NUMPY[tensor.dtype])


def to_proto(tensor: Tensor) -> Any:
    """Return a TensorProto with the elements in the typed field."""
    proto = _empty(tensor)
    if tensor.dtype == types_pb2.DT_STRING:
        proto.string_val.extend(tensor.strings)
    elif not tensor.data:
        pass
    elif tensor.dtype in _PACKED:
        tag = bytes([_PACKED[tensor.dtype] << 3 | LENGTH_DELIMITED])
        proto.MergeFromString(tag + varint(len(tensor.data)) + tensor.data)
    elif tensor.dtype in _FLOAT8:
        proto.float8_val = tensor.data
    else:
        getattr(proto, _FIELD.get(tensor.dtype, "int_val")).extend(as_array(tensor).tolist())
    return proto


def to_content(tensor: Tensor) -> Any:
    """Return a TensorProto with `tensor_content`, for --enable_serialization_as_tensor_content."""
    proto = _empty(tensor)
    if tensor.dtype == types_pb2.DT_STRING:
        # tensor_coding.cc, EncodeStringList: all lengths, then all bytes.
        lengths = b"".join(varint(len(one)) for one in tensor.strings)
        proto.tensor_content = lengths + b"".join(tensor.strings)
    else:
        proto.tensor_content = tensor.data
    return proto


def _empty(tensor: Tensor) -> Any:
    proto = tensor_pb2.TensorProto(dtype=tensor.dtype)
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    return proto
