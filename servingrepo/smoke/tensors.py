"""Convert plain Python values to TensorProtos and back, without numpy.

The format is that of tensorflow/core/framework/tensor.cc: small integers are in `int_val`, half and bfloat16 as bit
patterns in `half_val`, complex numbers as pairs. If there are fewer values than elements, the last value repeats. If
`tensor_content` is not empty, it has all values instead.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.protos import tensor_pb2
from servingrepo.savedmodel.signatures import dtype_name, dtype_number, shape_from

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ELEMENT_LIMIT",
    "FLOATING",
    "INTEGERS",
    "Scalar",
    "Tensor",
    "count_elements",
    "fill_tensor",
    "make_tensor",
    "read_tensor",
]

ELEMENT_LIMIT = 1 << 26
"""The most elements of a tensor: one repeated value could stand for any number, and fill our memory or a server's."""

Scalar = float | int | bool | bytes | complex

_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int32": "int_val",
    "int16": "int_val",
    "int8": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "qint8": "int_val",
    "quint8": "int_val",
    "qint16": "int_val",
    "quint16": "int_val",
    "qint32": "int_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}
_FORMATS = {
    "float32": "f",
    "float64": "d",
    "int32": "i",
    "int16": "h",
    "int8": "b",
    "uint8": "B",
    "uint16": "H",
    "qint8": "b",
    "quint8": "B",
    "qint16": "h",
    "quint16": "H",
    "qint32": "i",
    "int64": "q",
    "uint32": "I",
    "uint64": "Q",
    "bool": "?",
    "float16": "e",
    "bfloat16": "H",
    "complex64": "2f",
    "complex128": "2d",
}
FLOATING = frozenset({"float32", "float64", "float16", "bfloat16"})
_COMPLEX = frozenset({"complex64", "complex128"})
INTEGERS = frozenset(_FIELDS) - FLOATING - _COMPLEX - {"bool", "string"}


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor as plain values: dtype by name, shape, and the values in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    values: tuple[Any, ...]


def count_elements(shape: Sequence[int]) -> int:
    """Return the number of elements of a tensor with this shape."""
    count = 1
    for size in shape:
        count *= size
    return count


def fill_tensor(dtype: str, shape: Sequence[int], value: Scalar) -> Any:
    """Return a TensorProto whose elements all have one value. It holds this value once, whatever its shape.

    Raises:
        ValueError: Values of this dtype cannot be sent: it is a resource, for example.
    """
    return make_tensor(dtype, shape, [value] if count_elements(shape) else [])


def make_tensor(dtype: str, shape: Sequence[int], values: Sequence[Scalar]) -> Any:
    """Return a TensorProto with these values in row-major order.

    Raises:
        ValueError: Values of this dtype cannot be sent, or a value does not fit it.
    """
    field = _FIELDS.get(dtype)
    if field is None:
        raise ValueError(f"no {dtype} can be sent in a request")
    message = tensor_pb2.TensorProto(dtype=dtype_number(dtype))
    message.tensor_shape.SetInParent()
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    try:
        getattr(message, field).extend(_encoded(dtype, values))
    except (TypeError, OverflowError, struct.error) as error:
        raise ValueError(f"a value is no {dtype}") from error
    return message


def read_tensor(message: Any) -> Tensor:
    """Return the values of a TensorProto.

    Raises:
        ValueError: Its values do not fit its dtype and shape.
    """
    dtype = dtype_name(message.dtype)
    found = shape_from(message.tensor_shape)
    if dtype not in _FIELDS or found is None or None in found:
        raise ValueError(f"it is no tensor of a known dtype and shape ({dtype}, {found})")
    shape = tuple(size for size in found if size is not None)
    count = count_elements(shape)
    if message.tensor_content:
        values = _content(dtype, message.tensor_content, count)
    else:
        values = _decoded(dtype, list(getattr(message, _FIELDS[dtype])))
    if len(values) > count or (count and not values):
        raise ValueError(f"it has {len(values)} values for the shape {list(shape)}")
    if count > ELEMENT_LIMIT:
        raise ValueError(f"its shape {list(shape)} is too large to be checked")
    values += values[-1:] * (count - len(values))
    return Tensor(dtype=dtype, shape=shape, values=tuple(values))


def _encoded(dtype: str, values: Sequence[Scalar]) -> list[Any]:
    if dtype in _COMPLEX:
        return [part for one in values for part in _parts(one)]
    if dtype == "float16":
        return [struct.unpack("<H", struct.pack("<e", one))[0] for one in values]
    if dtype == "bfloat16":
        return [struct.unpack("<HH", struct.pack("<f", one))[1] for one in values]
    if dtype in INTEGERS and dtype in _FORMATS:
        for one in values:
            struct.pack(
                "<" + _FORMATS[dtype], one
            )  # raises if it is too large: int_val is wider than the dtype
    return list(values)


def _parts(value: Scalar) -> tuple[float, float]:
    if isinstance(value, bytes):
        raise TypeError("bytes are no number")
    number = complex(value)
    return number.real, number.imag


def _decoded(dtype: str, values: list[Any]) -> list[Any]:
    if dtype in _COMPLEX:
        return [complex(*pair) for pair in zip(values[::2], values[1::2], strict=False)]
    if dtype == "float16":
        return [struct.unpack("<e", struct.pack("<H", one & 0xFFFF))[0] for one in values]
    if dtype == "bfloat16":
        return [_from_bfloat16(one) for one in values]
    return values


def _content(dtype: str, content: bytes, count: int) -> list[Any]:
    if dtype == "string":
        return _strings(content, count)
    form = "<" + _FORMATS[dtype]
    if len(content) != count * struct.calcsize(form):
        raise ValueError(f"{len(content)} bytes are no {count} values of {dtype}")
    values = list(struct.iter_unpack(form, content))
    if dtype in _COMPLEX:
        return [complex(*pair) for pair in values]
    if dtype == "bfloat16":
        return [_from_bfloat16(one) for (one,) in values]
    return [one for (one,) in values]


def _from_bfloat16(bits: int) -> float:
    number: float = struct.unpack("<f", struct.pack("<HH", 0, bits & 0xFFFF))[0]
    return number


def _strings(content: bytes, count: int) -> list[Any]:
    """Decode strings as port::DecodeStringList does: all lengths as varints, then all bytes."""
    sizes, at = [], 0
    for _ in range(count):
        size = shift = 0
        while True:
            if at >= len(content):
                raise ValueError("the lengths of its strings end too early")
            byte = content[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                break
        sizes.append(size)
    if at + sum(sizes) != len(content):
        raise ValueError("the lengths of its strings are not those of its bytes")
    values = []
    for size in sizes:
        values.append(content[at : at + size])
        at += size
    return values
