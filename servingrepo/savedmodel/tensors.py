"""Every tensor of a bundle against its checksum, while its data files are read for something else.

The bytes come from the reader of the files: each file is read once, for its hash and for its tensors. TensorFlow
itself checks only what it restores, and when it restores it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from servingrepo.protos import types_pb2
from servingrepo.savedmodel.bundle import shard_name
from servingrepo.savedmodel.crc32c import crc32c
from servingrepo.savedmodel.layouts import BrokenLayout, Plain, Strings, Variants
from servingrepo.savedmodel.signatures import dtype_name
from servingrepo.savedmodel.values import TensorCheck, TensorDamage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servingrepo.savedmodel.bundle import BundleIndex, TensorEntry
    from servingrepo.savedmodel.layouts import TensorBytes

__all__ = ["ELEMENT_SIZES", "Tensors", "misfits"]

MOST_LISTED = 100
"""Damaged tensors that are listed one by one."""

_WRONG = "its bytes do not have the checksum that variables.index has for it"


def misfits(index: BundleIndex) -> tuple[TensorDamage, ...]:
    """Return the tensors whose places cannot be right: by their size, or because others lie there too."""
    found = []
    before: TensorEntry | None = None
    for entry in index.entries:
        reason = _misfit(entry)
        beside = before is not None and entry.size > 0 and entry.shard == before.shard
        if before is not None and beside and entry.offset < before.end:
            reason = f"it overlaps tensor {before.name}"
        if reason:
            found.append(_damage(entry, index.num_shards, reason))
        if entry.size and (before is None or entry.shard != before.shard or entry.end > before.end):
            before = entry
    return tuple(found)


class Tensors:
    """The check of one bundle: give `watch` to the reader of the files, then ask for `result`."""

    def __init__(self, index: BundleIndex, *, wrong: Sequence[TensorDamage] | None = None) -> None:
        """Prepare the check; `wrong` is what `misfits` says of the index, where that is known already."""
        self._index = index
        self._lock = threading.Lock()
        wrong = misfits(index) if wrong is None else wrong
        bad = {(one.tensor, one.file, one.offset) for one in wrong}
        self._damaged = list(wrong)
        self._checked = len(wrong)
        self._size = 0
        self._unreferenced: dict[str, int] = {}
        by_shard: dict[int, list[TensorEntry]] = {}
        covered: dict[int, int] = {}
        for entry in index.entries:
            covered[entry.shard] = covered.get(entry.shard, 0) + entry.size
            if bad and (entry.name, _file(entry.shard, index.num_shards), entry.offset) in bad:
                continue
            if index.big_endian and not _is_plain(entry):
                continue  # its lengths are in the order of the machine that wrote it
            by_shard.setdefault(entry.shard, []).append(entry)
        self._shards = {
            _file(shard, index.num_shards): (by_shard.get(shard, []), covered.get(shard, 0))
            for shard in range(index.num_shards)
        }

    def watch(self, path: str) -> Callable[[memoryview], None] | None:
        """Return what wants the bytes of a file of the export, in order, and none at its end; None if nothing."""
        found = self._shards.pop(path, None)
        if found is None:
            return None
        entries, covered = found
        shard = _Shard(path, entries, num_shards=self._index.num_shards, covered=covered)

        def feed(data: memoryview) -> None:
            shard.feed(data)
            if not data:
                self._done(shard)

        return feed

    def result(self) -> TensorCheck:
        """Return what was found, when all files were read; tensors of files that never came are not checked."""
        damaged = sorted(self._damaged, key=lambda one: (one.file, one.offset))
        return TensorCheck(
            tensors=len(self._index.entries),
            checked=self._checked,
            size=self._size,
            damaged=tuple(damaged[:MOST_LISTED]),
            damaged_count=len(damaged),
            unreferenced=dict(sorted(self._unreferenced.items())),
        )

    def _done(self, shard: _Shard) -> None:
        with self._lock:
            self._damaged += shard.damaged
            self._checked += shard.checked
            self._size += shard.size
            if shard.unreferenced:
                self._unreferenced[shard.path] = shard.unreferenced


class _Shard:
    """One data file, as its bytes come."""

    def __init__(
        self, path: str, entries: Sequence[TensorEntry], *, num_shards: int, covered: int
    ) -> None:
        self.path = path
        self.damaged: list[TensorDamage] = []
        self.checked = self.size = 0
        self._entries = entries
        self._num_shards = num_shards
        self._covered = covered
        self._next = 0
        self._at = 0
        self._partial: TensorBytes | None = None
        self._broken = ""

    @property
    def unreferenced(self) -> int:
        """Bytes of the file in which no tensor lies."""
        return max(0, self._at - self._covered)

    def feed(self, data: memoryview) -> None:
        """Take the next bytes of the file; none mean its end."""
        start = self._at
        end = self._at = start + len(data)
        while self._next < len(self._entries):
            entry = self._entries[self._next]
            if data and entry.offset >= end:
                break
            if entry.end > end:
                if data:
                    self._part(entry, data[max(entry.offset - start, 0) :])
                    break
                self.checked += 1
                self._say(entry, "its data file ends before it does")
            else:
                self._whole(entry, data, start)
            self._next += 1

    def _whole(self, entry: TensorEntry, data: memoryview, start: int) -> None:
        """Take the last bytes of a tensor, and compare."""
        first = max(entry.offset - start, 0)
        piece = data[first : entry.end - start]
        self.checked += 1
        self.size += entry.size
        if self._partial is None and _is_plain(entry):
            if crc32c(piece) != entry.crc:
                self._say(entry, _WRONG)
            return
        self._part(entry, piece)
        try:
            crc = self._partial.finish() if self._partial is not None and not self._broken else None
        except BrokenLayout as error:
            self._broken = str(error)
        if self._broken:
            self._say(entry, self._broken)
        elif crc != entry.crc:
            self._say(entry, _WRONG)
        self._partial, self._broken = None, ""

    def _part(self, entry: TensorEntry, piece: memoryview) -> None:
        if self._partial is None:
            self._partial = _layout(entry)
        if self._broken:
            return
        try:
            self._partial.feed(piece)
        except BrokenLayout as error:
            self._broken = str(error)

    def _say(self, entry: TensorEntry, reason: str) -> None:
        self.damaged.append(_damage(entry, self._num_shards, reason))


def _is_plain(entry: TensorEntry) -> bool:
    return entry.dtype not in {STRING, VARIANT}


def _layout(entry: TensorEntry) -> TensorBytes:
    if entry.dtype == STRING:
        return Strings(entry.elements or 0)
    if entry.dtype == VARIANT:
        return Variants(entry.elements or 0)
    return Plain()


def _misfit(entry: TensorEntry) -> str:
    """Say why an entry's size cannot be that of its shape, or nothing."""
    if entry.elements is None:
        return "its shape is none that a tensor can have"
    width = ELEMENT_SIZES.get(entry.dtype)
    if width is not None and entry.size != entry.elements * width:
        return f"its shape needs {entry.elements * width} bytes"
    least = {STRING: entry.elements + 4, VARIANT: entry.elements * 5}.get(entry.dtype, 0)
    if entry.size < least:
        return f"its shape needs {least} bytes at least"
    return ""


def _damage(entry: TensorEntry, num_shards: int, reason: str) -> TensorDamage:
    return TensorDamage(
        tensor=entry.name,
        dtype=dtype_name(entry.dtype),
        file=_file(entry.shard, num_shards),
        offset=entry.offset,
        size=entry.size,
        reason=reason,
    )


def _file(shard: int, num_shards: int) -> str:
    return f"variables/{shard_name(shard, num_shards)}"


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
"""Bytes that an element takes in a tensor bundle, by dtype (framework/types.proto, DataTypeSize)."""
_KNOWN = types_pb2.DataType.keys()
ELEMENT_SIZES = {
    types_pb2.DataType.Value(f"DT_{name}"): size
    for size, names in _SIZES.items()
    for name in names.split()
    if f"DT_{name}" in _KNOWN
}
"""Bytes of one element by DataType; strings, variants, and dtypes of a newer TensorFlow have no entry."""
