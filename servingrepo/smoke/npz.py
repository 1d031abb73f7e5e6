"""Read the arrays of a `.npz` file. Nothing is unpickled, and a large array is refused before it is read.

The format is numpy's: a zip of `.npy` files, each with a header that says dtype, order and shape (NEP 1).
"""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from typing import IO, TYPE_CHECKING, Any

from servingrepo.smoke.tensors import TENSOR_LIMIT, Array

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["array_of", "read_npz"]

_HEADER_LIMIT = 10_000
"""The most bytes of a header; it is numpy's own limit (max_header_size)."""
_ARRAYS = 1000
_MOST_TEXTS = 1 << 20
"""The most strings of an array: as Python objects they take far more memory than in the file."""
_KINDS = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
_BITS = frozenset(
    {
        *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "complex64", "complex128"),
    }
)


def read_npz(file: IO[bytes], *, limit: int = TENSOR_LIMIT) -> Mapping[str, Array]:
    """Return the arrays of a file by name. Together they may have `limit` bytes, however small the file is.

    Raises:
        ValueError: It is no such file, is damaged, or has an array that cannot be sent; the message says which.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            members = packed.infolist()
            if not members:
                raise ValueError("it holds no array")
            if len(members) > _ARRAYS:
                raise ValueError(f"it holds {len(members)} arrays, more than {_ARRAYS}")
            left = limit
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                    raise ValueError(f"array {name} is not packed as numpy packs arrays")
                try:
                    with packed.open(member) as content:
                        arrays[name] = _read_npy(content, left)
                except ValueError as error:
                    raise ValueError(f"array {name}: {error}") from error
                left -= len(arrays[name].content) + sum(map(len, arrays[name].texts))
            return arrays
    # zipfile's own errors, for what is damaged, encrypted, or of another version of the format.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"it is no whole .npz file: {error}") from error


def array_of(values: Any) -> Array:
    """Return a numpy array as an Array.

    Raises:
        ValueError: Its dtype cannot be sent, or it is too large.
    """
    import numpy as np

    if values.dtype.kind in "OSU":
        return _texts(values)
    if values.nbytes > TENSOR_LIMIT:
        raise ValueError(_too_large(values.shape, values.nbytes, TENSOR_LIMIT))
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    # ascontiguousarray makes a vector of a scalar.
    return Array(
        dtype=_named(values.dtype), shape=tuple(map(int, values.shape)), content=little.tobytes()
    )


def _read_npy(file: IO[bytes], left: int) -> Array:
    """Read one array of at most `left` bytes."""
    import numpy as np

    # numpy's own functions for headers say different things of each version; 1 and 2 differ in the length's size.
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"its format {version} is unknown")
    shape, columns_first, dtype = read(file, max_header_size=_HEADER_LIMIT)
    if dtype.hasobject:
        raise ValueError(
            "it is pickled, and nothing is unpickled: save it as numbers, or strings of a fixed length"
        )
    size = prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > left:
        raise ValueError(_too_large(shape, size, left))
    content = file.read(size)
    if len(content) != size:
        raise ValueError(f"it is cut short: {len(content)} bytes of {size}")
    values = np.frombuffer(content, dtype).reshape(shape, order="F" if columns_first else "C")
    return array_of(values)


def _texts(values: Any) -> Array:
    """Return an array of strings. numpy's strings of a fixed length end at their last byte that is not 0."""
    if values.size > _MOST_TEXTS:
        raise ValueError(f"it holds {values.size:,} strings, more than {_MOST_TEXTS:,}")
    texts = [one.encode() if isinstance(one, str) else one for one in values.ravel().tolist()]
    if not all(isinstance(one, bytes) for one in texts):
        raise ValueError("it holds Python objects that are no strings")
    return Array(dtype="string", shape=tuple(map(int, values.shape)), texts=tuple(texts))


def _named(dtype: Any) -> str:
    if dtype.kind == "b":
        return "bool"
    name = f"{_KINDS.get(dtype.kind, '')}{dtype.itemsize * 8}"
    if name not in _BITS:
        raise ValueError(f"its dtype {dtype} cannot be sent")
    return name


def _too_large(shape: tuple[int, ...], size: int, limit: int) -> str:
    return (
        f"its shape {list(shape)} needs {size:,} bytes, and there is room for {limit:,} in this case: "
        "a message of gRPC holds 2 GiB at most"
    )
