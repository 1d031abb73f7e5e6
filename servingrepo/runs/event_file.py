"""One TensorBoard event file: TFRecord framing around Event messages, of which only scalars are taken.

Payloads that are large, such as graphs and images, are skipped without being read. TensorFlow is not needed.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from servingrepo.protos import event_pb2, summary_pb2
from servingrepo.runs.event_framing import FOOT, HEAD, frame
from servingrepo.runs.event_rows import Rows, take_rows
from servingrepo.savedmodel.crc32c import crc32c, unmask
from servingrepo.storage.beneath import opened_plain
from servingrepo.storage.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST_NUMBERS", "MOST_TAGS", "EventFile", "TooMuch", "read_events"]

MOST_NUMBERS = 10_000_000
"""Scalars of a folder, which are in memory together, some 70 bytes each. Files of 900 MB have so many."""
MOST_TAGS = 10_000

_PIECE = 8 << 20
_LARGE = 64 << 10
"""Payloads above this are walked through, not decoded."""
_HUGE = 1 << 20
"""Payloads above this are not even read; to leap over smaller ones would take longer than to read them."""
_LONGEST_TAG = 4096
_WAITING = 100_000
"""Scalars that were taken one by one, until they are put into columns: there they take a quarter of the memory."""
_DOUBLE, _SINGLE, _BYTES, _VARINT = 1, 5, 2, 0
_SUMMARY_FIELD = 5
_PLUGINS = ("", "scalars")
_TENSORS = {1: "<f", 2: "<d", 3: "<i", 9: "<q", 14: "bfloat16", 19: "<e", 22: "<I", 23: "<Q"}
"""Formats by DataType (types.proto) of what a scalar may be."""


class _Scalar(msgspec.Struct, frozen=True):
    """One value of one tag; `place` orders the values of a file."""

    tag: str
    place: int
    step: int
    time: float
    value: float


class EventFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from one file."""

    rows: list[Rows]
    numbers: int
    """Scalars in these rows."""
    alone: int
    """How many of them were taken one by one."""
    records: int
    problems: tuple[str, ...]
    """What could not be read, in words; everything else was."""


class TooMuch(Exception):
    """There are more scalars, or more tags, than are kept in memory."""


def read_events(
    path: str, *, progress: Progress = silent, most: int = MOST_NUMBERS, most_tags: int = MOST_TAGS
) -> EventFile:
    """Read the scalars of an event file, `simple_value` and tensors of one number.

    What is readable of a broken file is read. After a record whose payload is damaged reading goes on; after a
    damaged length nothing can be found any more. `progress` is told the bytes that are done.

    Raises:
        TooMuch: It has more than `most` scalars or `most_tags` tags: the last and the best of a part of them are
            not those of all.
    """
    reader = _Reader(progress, most=most, most_tags=most_tags)
    try:
        with opened_plain(path) as descriptor:
            return reader.read(descriptor, os.fstat(descriptor).st_size)
    except OSError as error:
        return reader.done([f"it cannot be read: {error.strerror}"])


class _Reader:
    """Goes through a file a piece at a time."""

    def __init__(self, progress: Progress, *, most: int, most_tags: int) -> None:
        self._progress = progress
        self._most = most
        self._most_tags = most_tags
        self._rows: list[Rows] = []
        self._scalars: list[_Scalar] = []
        self._tags: set[str] = set()
        self._numbers = 0
        self._alone = 0
        self._records = 0
        self._damaged = 0
        self._first_damage = 0
        self._heads: dict[bytes, int] = {}

    def done(self, problems: list[str]) -> EventFile:
        """Return what was read, and what is wrong."""
        self._settle()
        if self._damaged:
            where = f"the first at byte {self._first_damage:,}"
            problems = [f"{self._damaged:,} damaged records were passed over, {where}", *problems]
        return EventFile(
            rows=self._rows,
            numbers=self._numbers,
            alone=self._alone,
            records=self._records,
            problems=tuple(problems),
        )

    def read(self, descriptor: int, size: int) -> EventFile:
        """Read a file of a size; what is appended meanwhile is left for the next time."""
        at = told = 0
        while at < size:
            self._progress(at - told)
            told = at
            piece = os.pread(descriptor, min(_PIECE, size - at), at)
            framed = frame(piece, heads=self._heads, large=_LARGE)
            self._decode(piece, at, framed.places)
            self._settle()
            begin, at = at, at + framed.end
            if framed.damaged:
                return self.done(
                    [f"damaged at byte {at:,}: the {size - at:,} bytes from there on are lost"]
                )
            for place, length in framed.large:
                self._walk_large(descriptor, begin + place, length)
            length = framed.next_size
            cut = not framed.end if length < 0 else at + HEAD + length + FOOT > size
            if cut:
                return self.done([f"it ends within a record, which begins at byte {at:,}"])
            if length > _HUGE:
                self._walk_large(descriptor, at + HEAD, length)
                at += HEAD + length + FOOT
        return self.done([])

    def _decode(self, piece: bytes, at: int, found: dict[int, Any]) -> None:
        """Take the scalars from a piece's records."""
        for size, places in found.items():
            self._records += len(places)
            taken = take_rows(piece, places, size, offset=at, tag_of=_only_tag)
            self._keep(taken.rows)
            for place in taken.wrong:
                self._damage(at + place)
            for place in taken.rest:
                payload = piece[place : place + size]
                stored = struct.unpack_from("<I", piece, place + size)[0]
                if crc32c(payload) != unmask(stored):
                    self._damage(at + place)
                    continue
                try:
                    self._scalars += _scalars(payload, at + place)
                except DecodeError:
                    self._damage(at + place)

    def _settle(self) -> None:
        """Put the scalars that were taken one by one into columns."""
        self._alone += len(self._scalars)
        self._keep(_columns(self._scalars))
        self._scalars = []

    def _keep(self, rows: list[Rows]) -> None:
        self._rows += rows
        self._numbers += sum(len(one.places) for one in rows)
        self._tags.update(one.tag for one in rows)
        if self._numbers > self._most or len(self._tags) > self._most_tags:
            raise TooMuch

    def _damage(self, place: int) -> None:
        self._first_damage = min(self._first_damage, place) if self._damaged else place
        self._damaged += 1

    def _walk_large(self, descriptor: int, begin: int, length: int) -> None:
        """Take the scalars that stand in a large record between images and the like, without reading those."""
        self._records += 1
        step, time = 0, 0.0
        place = begin
        try:
            for number, kind, value, size in _fields(descriptor, begin, begin + length):
                if number == 1 and kind == _DOUBLE:
                    time = struct.unpack("<d", value)[0]
                elif number == 2 and kind == _VARINT:  # noqa: PLR2004 - Event.step
                    step = size - (1 << 64) if size >> 63 else size
                elif number == _SUMMARY_FIELD and kind == _BYTES:
                    inside = int.from_bytes(value, "little")
                    for scalar in _values(descriptor, inside, inside + size):
                        place += 1
                        self._scalars += _of_values([scalar], place, step, time)
                        if len(self._scalars) >= _WAITING:
                            self._settle()
        except (ValueError, DecodeError, struct.error):
            self._damage(begin)


def _columns(scalars: list[_Scalar]) -> list[Rows]:
    by_tag: dict[str, list[_Scalar]] = defaultdict(list)
    for one in scalars:
        by_tag[one.tag].append(one)
    return [
        Rows(
            tag=tag,
            places=np.array([one.place for one in same], dtype=np.int64),
            steps=np.array([one.step for one in same], dtype=np.int64),
            times=np.array([one.time for one in same], dtype=np.float64),
            values=np.array([one.value for one in same], dtype=np.float64),
        )
        for tag, same in by_tag.items()
    ]


def _scalars(payload: bytes, place: int) -> list[_Scalar]:
    event = event_pb2.Event.FromString(payload)
    if not event.HasField("summary"):
        return []
    return _of_values(event.summary.value, place, event.step, event.wall_time)


def _only_tag(payload: bytes) -> str | None:
    try:
        found = _scalars(payload, 0)
    except DecodeError:
        return None
    return found[0].tag if len(found) == 1 else None


def _of_values(values: Any, place: int, step: int, time: float) -> list[_Scalar]:
    found: list[_Scalar] = []
    for one in values:
        kind = one.WhichOneof("value")
        number: float | None = None
        if kind == "simple_value":
            number = one.simple_value
        elif kind == "tensor" and one.metadata.plugin_data.plugin_name in _PLUGINS:
            number = _of_tensor(one.tensor)
        if number is not None and len(one.tag) <= _LONGEST_TAG:
            found.append(_Scalar(one.tag, place, step, time, number))
    return found


def _of_tensor(tensor: Any) -> float | None:
    """Return the number of a tensor without dimensions; None for any other tensor."""
    form = _TENSORS.get(tensor.dtype)
    if form is None or tensor.tensor_shape.dim or tensor.tensor_shape.unknown_rank:
        return None
    content = tensor.tensor_content
    if form == "bfloat16":
        bits = int.from_bytes(content, "little") if content else (*tensor.half_val, 0)[0]
        return float(struct.unpack("<f", struct.pack("<I", (bits & 0xFFFF) << 16))[0])
    if content:
        return (
            float(struct.unpack(form, content)[0])
            if len(content) == struct.calcsize(form)
            else None
        )
    if form == "<e":
        return float(struct.unpack("<e", struct.pack("<H", (*tensor.half_val, 0)[0] & 0xFFFF))[0])
    names = ("float_val", "double_val", "int_val", "int64_val", "uint32_val", "uint64_val")
    # An absent value means zero (tensor.proto: the last one is repeated, and there is none).
    return next((float(getattr(tensor, name)[0]) for name in names if getattr(tensor, name)), 0.0)


def _values(descriptor: int, begin: int, end: int) -> Iterator[Any]:
    """Yield the values of a Summary that are small enough to be scalars."""
    for number, kind, value, size in _fields(descriptor, begin, end):
        if number == 1 and kind == _BYTES and size <= _LONGEST_TAG:
            at = int.from_bytes(value, "little")
            yield summary_pb2.Summary.Value.FromString(os.pread(descriptor, size, at))


def _fields(descriptor: int, begin: int, end: int) -> Iterator[tuple[int, int, bytes, int]]:
    """Yield a message's fields without reading what is in them.

    Each is its number, its wire type, its bytes (for a fixed one) or its place in the file, and its size (for a
    varint: its value).

    Raises:
        ValueError: This is no message.
    """
    at = begin
    while at < end:
        head = os.pread(descriptor, 20, at)
        key, used = _varint(head, 0)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, used = _varint(head, used)
            yield number, kind, b"", value
            at += used
        elif kind in {_DOUBLE, _SINGLE}:
            width = 8 if kind == _DOUBLE else 4
            yield number, kind, head[used : used + width], width
            at += used + width
        elif kind == _BYTES:
            size, used = _varint(head, used)
            at += used
            if at + size > end:
                raise ValueError("a field is longer than its message")
            yield number, kind, at.to_bytes(8, "little"), size
            at += size
        else:
            raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift <= 63:  # noqa: PLR2004 - nothing here has more than 64 bits
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at
    raise ValueError("a number does not end")
