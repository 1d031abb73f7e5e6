"""Read the index of a tensor bundle: which tensors lie where in which data file.

The index is a sorted table (xla/tsl/lib/io/format.cc, table_builder.cc) whose first entry is the bundle's
header and whose others say where each tensor lies (tensor_bundle.proto). The data files are not read here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.message import DecodeError

from servingrepo.protos import tensor_bundle_pb2
from servingrepo.savedmodel.crc32c import crc32c, unmask
from servingrepo.savedmodel.snappy import BadSnappy, decompress

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BadIndex", "BundleIndex", "read_index", "shard_name"]

MAX_SHARDS = 99_999
"""The names of data files have five digits for the shard."""

_FOOTER = 48
_HANDLES = 40
_TRAILER = 5
_MAGIC = 0xDB4775248B80FB57
_BLOCK_LIMIT = 64 << 20
_CRC_LIMIT = 8 << 20  # the checksum is pure Python: past this it would take seconds


class BadIndex(ValueError):
    """The bytes are not a whole index of a tensor bundle."""


class BundleIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What the index says: per shard the bytes that its tensors need, and the names of the tensors."""

    num_shards: int
    shard_bytes: dict[int, int]
    names: frozenset[str]
    checksums_checked: bool


def read_index(data: bytes) -> BundleIndex:
    """Read the bytes of `variables.index`.

    Checksums of blocks are checked up to 8 MiB of index; `checksums_checked` says whether they were.

    Raises:
        BadIndex: It is truncated, corrupt, or something else.
    """
    try:
        return _read(data)
    except BadSnappy as error:
        raise BadIndex(f"a compressed block is corrupt: {error}") from error
    except (IndexError, struct.error) as error:
        raise BadIndex("a block ends too early") from error
    except DecodeError as error:
        raise BadIndex("an entry is no protobuf message of a tensor bundle") from error


def shard_name(shard: int, num_shards: int) -> str:
    """Return the name of a data file (tensor_bundle/naming.cc)."""
    return f"variables.data-{shard:05d}-of-{num_shards:05d}"


def _read(data: bytes) -> BundleIndex:
    if len(data) < _FOOTER:
        raise BadIndex(f"{len(data)} bytes are too short for an index")
    footer = data[-_FOOTER:]
    if struct.unpack("<Q", footer[_HANDLES:])[0] != _MAGIC:
        raise BadIndex("it does not end as an index does: it is truncated or something else")
    _, _, at = _handle(footer, 0)
    offset, size, _ = _handle(footer, at)
    checked = len(data) <= _CRC_LIMIT
    header: Any = None
    shard_bytes: dict[int, int] = {}
    names: set[str] = set()
    previous: bytes | None = None
    end = 0
    for _, value in _entries(_block(data, offset, size, check=checked)):
        offset, size, _ = _handle(value, 0)
        if offset < end:
            # Otherwise a hostile index could make us read one large block a million times.
            raise BadIndex("its blocks are not in order")
        end = offset + size + _TRAILER
        for key, content in _entries(_block(data, offset, size, check=checked)):
            if previous is not None and key <= previous:
                raise BadIndex("its keys are not in order")
            previous = key
            if header is None:
                header = _header(key, content)
                continue
            _add_entry(key, content, header.num_shards, shard_bytes, names)
    if header is None:
        raise BadIndex("it has no header")
    return BundleIndex(
        num_shards=header.num_shards,
        shard_bytes=shard_bytes,
        names=frozenset(names),
        checksums_checked=checked,
    )


def _header(key: bytes, content: bytes) -> Any:
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(content)
    if key != b"" or not 0 < header.num_shards <= MAX_SHARDS:
        raise BadIndex("its first entry is no header")
    return header


def _add_entry(
    key: bytes, content: bytes, num_shards: int, shard_bytes: dict[int, int], names: set[str]
) -> None:
    entry = tensor_bundle_pb2.BundleEntryProto.FromString(content)
    # Keys of slices of partitioned variables begin with a zero byte and are not names.
    if not key.startswith(b"\0"):
        names.add(key.decode("utf-8", "backslashreplace"))
    if entry.slices:
        return  # the place of a partitioned variable is in the entries of its slices
    if not 0 <= entry.shard_id < num_shards or entry.offset < 0 or entry.size < 0:
        raise BadIndex(f"the entry of {key!r} points nowhere")
    end = entry.offset + entry.size
    shard_bytes[entry.shard_id] = max(end, shard_bytes.get(entry.shard_id, 0))


def _block(data: bytes, offset: int, size: int, *, check: bool) -> bytes:
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise BadIndex("a block lies outside the file")
    kind = data[end]
    if check:
        stored = struct.unpack("<I", data[end + 1 : end + _TRAILER])[0]
        if crc32c(memoryview(data)[offset : end + 1]) != unmask(stored):
            raise BadIndex("the checksum of a block is wrong")
    content = data[offset:end]
    if kind == 0:
        return content
    if kind == 1:
        return decompress(content, limit=_BLOCK_LIMIT)
    raise BadIndex(f"a block has the unknown type {kind}")


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:  # noqa: PLR2004 - the count of restarts, uint32
        raise BadIndex("a block is too short")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise BadIndex("a block has more restarts than room")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        size, at = _varint(block, at)
        if shared > len(key) or at + fresh + size > end:
            raise BadIndex("an entry is longer than its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + size]
        at += size


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
        if shift > 63:  # noqa: PLR2004 - nothing here has more than 64 bits
            raise BadIndex("a number has more than 64 bits")
