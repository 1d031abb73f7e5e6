"""Read the index of a tensor bundle: which tensors lie where in which data file.

The index is a sorted table (xla/tsl/lib/io/format.cc, table_builder.cc) whose first entry is the bundle's
header and whose others say where each tensor lies (tensor_bundle.proto). The data files are not read here.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.message import DecodeError

from servingrepo.protos import tensor_bundle_pb2
from servingrepo.savedmodel.crc32c import crc32c, unmask
from servingrepo.savedmodel.snappy import BadSnappy, decompress
from servingrepo.savedmodel.wire import BadVarint, read_varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BadIndex", "BundleIndex", "TensorEntry", "read_index", "shard_name"]

MAX_SHARDS = 99_999
"""The names of data files have five digits for the shard."""

_FOOTER = 48
_HANDLES = 40
_TRAILER = 5
_MAGIC = 0xDB4775248B80FB57
_BLOCK_LIMIT = 64 << 20
# What a hostile index may unpack to: blocks can be compressed, and keys repeat what those before them began.
_TOTAL_LIMIT = 128 << 20
_KEYS_LIMIT = 64 << 20
_MAX_ENTRIES = 500_000
_MAX_DIMENSIONS = 254  # tensor_shape.h
_NAME_LIMIT = 200
_HIGHEST = (1 << 63) - 1


class BadIndex(ValueError):
    """The bytes are not a whole index of a tensor bundle."""


class TensorEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The place of one tensor, or of one slice of a partitioned one; `crc` is unmasked.

    `name` is its key for people: that of a slice is the tensor's name with `[slice]`. `elements` is None for a
    shape that no tensor can have. An entry of a shard above the header's number is none.
    """

    name: str
    dtype: int
    elements: int | None
    shard: int
    offset: int
    size: int
    crc: int

    @property
    def end(self) -> int:
        """The offset of the first byte after it."""
        return self.offset + self.size


class BundleIndex(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors and data files that the index names.

    Attributes:
        num_shards: How many data files there are.
        big_endian: Whether numbers in the data files begin with their highest byte.
        entries: Every tensor and slice, sorted by shard and offset.
        names: The names of the tensors, partitioned ones included.
        unsliced: Partitioned tensors of which slices are not there.
        unreferenced: Bytes of the index that belong to none of its blocks, so that no checksum covers them.
    """

    num_shards: int
    big_endian: bool
    entries: tuple[TensorEntry, ...]
    names: frozenset[str]
    unsliced: tuple[str, ...]
    unreferenced: int = 0

    @property
    def shards(self) -> tuple[str, ...]:
        """The names of the data files."""
        return tuple(shard_name(shard, self.num_shards) for shard in range(self.num_shards))

    @property
    def shard_bytes(self) -> dict[int, int]:
        """Bytes that each shard must have at least."""
        found: dict[int, int] = {}
        for entry in self.entries:
            found[entry.shard] = max(entry.end, found.get(entry.shard, 0))
        return found


def read_index(data: bytes) -> BundleIndex:
    """Read the bytes of `variables.index`; the checksum of every block is checked.

    Raises:
        BadIndex: It is truncated, corrupt, something else, or made to take more memory than is reasonable.
    """
    try:
        return _read(data)
    except BadSnappy as error:
        raise BadIndex(f"a compressed block is corrupt: {error}") from error
    except BadVarint as error:
        raise BadIndex(f"in a block, {error}") from error
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
    offset, size, at = _handle(footer, 0)
    _block(data, offset, size)  # the metaindex has nothing for us, but a server checks it, too
    covered = size + _TRAILER
    offset, size, at = _handle(footer, at)
    covered += size + _TRAILER + _FOOTER
    if footer[at:_HANDLES].strip(b"\0"):
        raise BadIndex("its last bytes are not as an index's")
    header: Any = None
    entries: list[TensorEntry] = []
    names: set[str] = set()
    partitioned: dict[bytes, int] = {}
    slices: dict[bytes, int] = {}
    blocks = _blocks(data, offset, size)
    covered += sum(length + _TRAILER for _, length in blocks)
    for key, content in _all_entries(data, blocks):
        if header is None:
            header = _header(key, content)
            continue
        message = tensor_bundle_pb2.BundleEntryProto.FromString(content)
        # Keys of slices of partitioned variables begin with a zero byte and are not names.
        if key.startswith(b"\0"):
            tensor = _sliced_tensor(key)
            slices[tensor] = slices.get(tensor, 0) + 1
            name = f"{_text(tensor)} [slice]"
        else:
            name = _text(key)
            names.add(name)
            if message.slices:
                # Where a partitioned variable lies is in the entries of its slices.
                partitioned[key] = len(message.slices)
                continue
        entries.append(_entry(name, message, header.num_shards))
    if header is None:
        raise BadIndex("it has no header")
    entries.sort(key=lambda entry: (entry.shard, entry.offset, entry.size))
    return BundleIndex(
        num_shards=header.num_shards,
        big_endian=header.endianness == header.BIG,
        entries=tuple(entries),
        names=frozenset(names),
        unsliced=tuple(
            sorted(_text(key) for key, count in partitioned.items() if slices.get(key, 0) < count)
        ),
        unreferenced=max(0, len(data) - covered),
    )


def _blocks(data: bytes, offset: int, size: int) -> list[tuple[int, int]]:
    """Return where the data blocks are, and their sizes, from the block that lists them."""
    found: list[tuple[int, int]] = []
    last_end = 0
    for _, value in _entries(_block(data, offset, size)):
        offset, size, _ = _handle(value, 0)
        if offset < last_end:
            # Otherwise a hostile index could make us read one large block a million times.
            raise BadIndex("its blocks are not in order")
        last_end = offset + size + _TRAILER
        found.append((offset, size))
    return found


def _all_entries(data: bytes, blocks: Sequence[tuple[int, int]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield what is in the data blocks, in bounded memory."""
    previous: bytes | None = None
    total = keys = count = 0
    for offset, size in blocks:
        block = _block(data, offset, size)
        total += len(block)
        if total > _TOTAL_LIMIT:
            raise BadIndex(f"its blocks hold more than {_TOTAL_LIMIT >> 20} MiB")
        for key, content in _entries(block):
            if previous is not None and key <= previous:
                raise BadIndex("its keys are not in order")
            keys += len(key)
            count += 1
            if keys > _KEYS_LIMIT:
                raise BadIndex(f"its names have more than {_KEYS_LIMIT >> 20} MiB")
            if count > _MAX_ENTRIES:
                raise BadIndex(f"it has more than {_MAX_ENTRIES:,} tensors")
            previous = key
            yield key, content


def _header(key: bytes, content: bytes) -> Any:
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(content)
    if key != b"" or not 0 < header.num_shards <= MAX_SHARDS:
        raise BadIndex("its first entry is no header")
    return header


def _entry(name: str, message: Any, num_shards: int) -> TensorEntry:
    shard, offset, size = message.shard_id, message.offset, message.size
    if not 0 <= shard < num_shards or offset < 0 or not 0 <= size <= _HIGHEST - offset:
        raise BadIndex(f"the entry of {name[:_NAME_LIMIT]!r} points nowhere")
    shape = message.shape
    dims = shape.dim
    sizes = [dim.size for dim in dims] if len(dims) <= _MAX_DIMENSIONS else [-1]
    known = not shape.unknown_rank and min(sizes, default=0) >= 0
    elements = math.prod(sizes) if known else None
    return TensorEntry(
        name=name,
        dtype=message.dtype,
        elements=elements,
        shard=shard,
        offset=offset,
        size=size,
        crc=unmask(message.crc32c),
    )


def _sliced_tensor(key: bytes) -> bytes:
    """Return the name in the key of a slice (saved_tensor_slice_util.cc, ordered_code.cc).

    It begins with the number 0, one zero byte, and the name, in which 00 is written 00 FF and FF is FF 00, and
    which ends with 00 01.
    """
    name = key[1:].partition(b"\0\x01")[0]
    return name.replace(b"\0\xff", b"\0").replace(b"\xff\0", b"\xff")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def _block(data: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise BadIndex("a block lies outside the file")
    kind = data[end]
    stored = struct.unpack("<I", data[end + 1 : end + _TRAILER])[0]
    if crc32c(data[offset : end + 1]) != unmask(stored):
        raise BadIndex(f"the checksum of the block at offset {offset} is wrong")
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
        shared, at = read_varint(block, at)
        fresh, at = read_varint(block, at)
        size, at = read_varint(block, at)
        if shared > len(key) or at + fresh + size > end:
            raise BadIndex("an entry is longer than its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + size]
        at += size


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return offset, size, at
