"""TensorFlow's tensors and TensorProto: dtypes, names, and outputs as messages.

After tensorflow/core/framework/tensor.cc (AsProtoField, AsProtoTensorContent): every element is written, without
run-length compression. It does not import TensorFlow, and copies whole arrays where the wire format allows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from servingrepo.embedded.wire import varint
from servingrepo.protos import tensor_pb2, types_pb2
from servingrepo.savedmodel.wire import LENGTH_DELIMITED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.embedded.runtime import Tensor

__all__ = ["as_array", "dtype_name", "shape_text", "to_content", "to_proto"]

_LAYOUTS: dict[Any, str] = {
    np.bool_: "BOOL",
    np.int8: "INT8 QINT8 INT4",
    np.uint8: "UINT8 QUINT8 UINT4 FLOAT8_E5M2 FLOAT8_E4M3FN",
    np.int16: "INT16 QINT16",
    np.uint16: "UINT16 QUINT16 HALF BFLOAT16",
    np.int32: "INT32 QINT32",
    np.uint32: "UINT32",
    np.int64: "INT64",
    np.uint64: "UINT64",
    np.float32: "FLOAT",
    np.float64: "DOUBLE",
    np.complex64: "COMPLEX64",
    np.complex128: "COMPLEX128",
}
_NUMPY: dict[int, Any] = {
    types_pb2.DataType.Value(f"DT_{name}"): layout
    for layout, names in _LAYOUTS.items()
    for name in names.split()
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
