"""How many bytes an element of a dtype takes in a tensor bundle (framework/types.proto, DataTypeSize)."""

from __future__ import annotations

from servingrepo.protos import types_pb2

__all__ = ["STRING", "VARIANT", "element_size"]

STRING: int = types_pb2.DT_STRING
VARIANT: int = types_pb2.DT_VARIANT

_SIZES = {
    1: "UINT8 INT8 QINT8 QUINT8 BOOL INT4 UINT4 INT2 UINT2 FLOAT8_E5M2 FLOAT8_E4M3FN FLOAT8_E4M3FNUZ "
    "FLOAT8_E4M3B11FNUZ FLOAT8_E5M2FNUZ FLOAT4_E2M1FN",
    2: "HALF BFLOAT16 INT16 UINT16 QINT16 QUINT16",
    4: "FLOAT INT32 UINT32 QINT32",
    8: "DOUBLE INT64 UINT64 COMPLEX64",
    16: "COMPLEX128",
}
_KNOWN = types_pb2.DataType.keys()
_BY_NUMBER = {
    types_pb2.DataType.Value(f"DT_{name}"): size
    for size, names in _SIZES.items()
    for name in names.split()
    if f"DT_{name}" in _KNOWN
}


def element_size(dtype: int) -> int | None:
    """Return the bytes of one element; None for strings, variants, and dtypes of a newer TensorFlow."""
    return _BY_NUMBER.get(dtype)
