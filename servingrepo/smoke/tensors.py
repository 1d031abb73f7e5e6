"""Convert plain Python values to TensorProtos and back, without numpy.

The format is that of tensorflow/core/framework/tensor.cc: small integers are in `int_val`, half and bfloat16 as bit
patterns in `half_val`, complex numbers as pairs. If there are fewer values than elements, the last value repeats. If
`tensor_content` is not empty, it has all values instead.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.protos import tensor_pb2
from servingrepo.savedmodel.signatures import dtype_name, dtype_number, shape_from
from servingrepo.savedmodel.wire import BadVarint, read_varint

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ELEMENT_LIMIT",
    "FLOATING",
    "INTEGERS",
    "TENSOR_LIMIT",
    "Array",
    "Scalar",
    "Tensor",
    "array_tensor",
    "fill_tensor",
    "make_tensor",
    "read_tensor",
]

ELEMENT_LIMIT = 1 << 26
"""The most elements of a tensor: one repeated value could stand for any number, and fill our memory or a server's."""

TENSOR_LIMIT = 1 << 30
"""The most bytes of one tensor of a case. A message has 2 GiB at most (protobuf's encoding), for all inputs."""

Scalar = float | int | bool | bytes | complex

_DTYPES = {
    "float32": ("float_val", "<f"),
    "float64": ("double_val", "<d"),
    "int32": ("int_val", "<i"),
    "int16": ("int_val", "<h"),
    "int8": ("int_val", "<b"),
    "uint8": ("int_val", "<B"),
    "uint16": ("int_val", "<H"),
    "qint8": ("int_val", "<b"),
    "quint8": ("int_val", "<B"),
    "qint16": ("int_val", "<h"),
    "quint16": ("int_val", "<H"),
    "qint32": ("int_val", "<i"),
    "int64": ("int64_val", "<q"),
    "uint32": ("uint32_val", "<I"),
    "uint64": ("uint64_val", "<Q"),
    "bool": ("bool_val", "<?"),
    "string": ("string_val", ""),
    "float16": ("half_val", "<e"),
    "bfloat16": ("half_val", "<H"),
    "complex64": ("scomplex_val", "<2f"),
    "complex128": ("dcomplex_val", "<2d"),
}
"""Each dtype's field of a TensorProto, and the format of an element in `tensor_content`, as `struct` writes it."""
FLOATING = frozenset({"float32", "float64", "float16", "bfloat16"})
_COMPLEX = frozenset({"complex64", "complex128"})
INTEGERS = frozenset(_DTYPES) - FLOATING - _COMPLEX - {"bool", "string"}


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor as plain values: dtype by name, shape, and the values in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    values: tuple[Any, ...]


class Array(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor as numpy stores it: `content` has the elements in row-major order, little-endian.

    Strings are in `texts` instead.
    """

    dtype: str
    shape: tuple[int, ...]
    content: bytes = b""
    texts: tuple[bytes, ...] = ()


def array_tensor(array: Array) -> Any:
    """Return an array as a TensorProto.

    Raises:
        ValueError: Values of this dtype cannot be sent, or the content does not fit its shape.
    """
    if array.dtype == "string":
        if len(array.texts) != prod(array.shape):
            raise ValueError(f"{len(array.texts)} strings are no {list(array.shape)}")
        return make_tensor("string", array.shape, array.texts)
    if array.dtype not in _DTYPES:
        raise ValueError(f"no {array.dtype} can be sent in a request")
    size = struct.calcsize(_DTYPES[array.dtype][1]) * prod(array.shape)
    if len(array.content) != size:
        raise ValueError(f"{len(array.content)} bytes are no {list(array.shape)} of {array.dtype}")
    message = make_tensor(array.dtype, array.shape, ())
    message.tensor_content = array.content
    return message


def fill_tensor(dtype: str, shape: Sequence[int], value: Scalar) -> Any:
    """Return a TensorProto whose elements all have one value. It holds this value once, whatever its shape.

    Raises:
        ValueError: Values of this dtype cannot be sent: it is a resource, for example.
    """
    return make_tensor(dtype, shape, [value] if prod(shape) else [])


def make_tensor(dtype: str, shape: Sequence[int], values: Sequence[Scalar]) -> Any:
    """Return a TensorProto with these values in row-major order.

    Raises:
        ValueError: Values of this dtype cannot be sent, or a value does not fit it.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"no {dtype} can be sent in a request")
    message = tensor_pb2.TensorProto(dtype=dtype_number(dtype))
    message.tensor_shape.SetInParent()
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    try:
        getattr(message, _DTYPES[dtype][0]).extend(_encoded(dtype, values))
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
    if dtype not in _DTYPES or found is None or None in found:
        raise ValueError(f"it is no tensor of a known dtype and shape ({dtype}, {found})")
    shape = tuple(size for size in found if size is not None)
    count = prod(shape)
    if message.tensor_content:
        values = _content(dtype, message.tensor_content, count)
    else:
        values = _decoded(dtype, list(getattr(message, _DTYPES[dtype][0])))
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
    if dtype in INTEGERS:
        for (
            one
        ) in values:  # int_val is wider than the dtype, so `struct` has to refuse what is too large
            struct.pack(_DTYPES[dtype][1], one)
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
    form = _DTYPES[dtype][1]
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
    try:
        for _ in range(count):
            size, at = read_varint(content, at)
            sizes.append(size)
    except BadVarint as error:
        raise ValueError("the lengths of its strings end too early") from error
    if at + sum(sizes) != len(content):
        raise ValueError("the lengths of its strings are not those of its bytes")
    values = []
    for size in sizes:
        values.append(content[at : at + size])
        at += size
    return values
