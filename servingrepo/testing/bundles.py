"""Tensor bundles (`variables.index` and its data file) of float tensors, written by hand for tests.

The format is that of TensorFlow's tensor_bundle.cc, on top of the sorted table of
xla/tsl/lib/io/table_builder.cc.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING

from servingrepo.protos import tensor_bundle_pb2, types_pb2
from servingrepo.savedmodel.crc32c import crc32c, mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["write_bundle", "write_tensors"]

_FLOAT = 4
_MAGIC = 0xDB4775248B80FB57


def write_bundle(prefix: Path, scalars: Mapping[str, float], *, num_shards: int = 1) -> None:
    """Write `<prefix>.index` and its data files; tensors go to the shards in turn.

    Args:
        prefix: The path without `.index`; its folder must be there.
        scalars: float32 scalars by variable name.
        num_shards: How many data files to write.
    """
    tensors = [(name, struct.pack("<f", value)) for name, value in sorted(scalars.items())]
    write_tensors(prefix, tensors, num_shards=num_shards)


def write_tensors(
    prefix: Path, tensors: Iterable[tuple[str, bytes]], *, num_shards: int = 1
) -> None:
    """Write a bundle of float32 tensors, given as bytes one after the other, so that it may be large.

    Four bytes are a scalar, more a vector. They go to the shards in turn.
    """
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=num_shards)
    header.version.producer = 1
    entries = {"": header.SerializeToString()}
    ends = [0] * num_shards
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{num_shards:05d}").open("wb")
            )
            for shard in range(num_shards)
        ]
        for position, (name, content) in enumerate(tensors):
            shard = position % num_shards
            entry = tensor_bundle_pb2.BundleEntryProto(
                dtype=types_pb2.DT_FLOAT,
                shard_id=shard,
                offset=ends[shard],
                size=len(content),
                crc32c=mask(crc32c(content)),
            )
            entry.shape.SetInParent()
            if len(content) != _FLOAT:
                entry.shape.dim.add(size=len(content) // _FLOAT)
            files[shard].write(content)
            ends[shard] += len(content)
            entries[name] = entry.SerializeToString()
    prefix.with_name(prefix.name + ".index").write_bytes(_table(entries))


def _table(entries: Mapping[str, bytes]) -> bytes:
    data = _block({name.encode(): value for name, value in entries.items()})
    meta = _block({})
    last = max(name.encode() for name in entries)
    index = _block({last: _handle(0, len(data) - 5)})
    at_meta, at_index = len(data), len(data) + len(meta)
    handles = _handle(at_meta, len(meta) - 5) + _handle(at_index, len(index) - 5)
    return data + meta + index + handles.ljust(40, b"\0") + struct.pack("<Q", _MAGIC)


def _block(entries: Mapping[bytes, bytes]) -> bytes:
    """Return a block, uncompressed, that restarts at every key, with its type and checksum."""
    body, restarts = bytearray(), []
    for key, value in sorted(entries.items()):
        restarts.append(len(body))
        body += _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value
    restarts = restarts or [0]
    body += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)) + b"\0"
    return bytes(body) + struct.pack("<I", mask(crc32c(bytes(body))))


def _handle(offset: int, size: int) -> bytes:
    return _varint(offset) + _varint(size)


def _varint(number: int) -> bytes:
    result = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits to a byte
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)
