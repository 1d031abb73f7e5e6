"""Read the scalars of one TensorBoard event file: TFRecord frames with Event messages in them.

Large payloads, such as graphs and images, are skipped and not read. TensorFlow is not needed.
"""

from __future__ import annotations

import os
import struct
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from servingrepo.protos import event_pb2, summary_pb2
from servingrepo.savedmodel.crc32c import crc32c, unmask
from servingrepo.savedmodel.wire import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, read_varint
from servingrepo.storage.beneath import opened_plain
from servingrepo.storage.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["MOST_NUMBERS", "MOST_TAGS", "EventFile", "TooMuch", "read_events"]


# scalars as columns -----------------------------------------------------------------------------------
#
# This part decodes the scalars of many equally long event records at once, with numpy.
#
# A training loop writes the same few tags again and again, so most records of a file differ only in their wall
# time, step and value. Records of one length are laid side by side. Those that also agree in all other bytes are
# decoded as columns. Their checksums follow from the checksum of one record, because a CRC is linear. Other records
# are left to the reader that takes records one by one; this reader also decodes the common bytes.

LONGEST = 135
"""Longer payloads have lengths of two bytes inside, and are decoded one by one."""

_Bytes = npt.NDArray[np.uint8]
_Places = npt.NDArray[np.int64]

_FEWEST = 16
"""The fewest records to decode together; with fewer, each would take longer than alone."""
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_MASK_DELTA = np.uint32(0xA282EAD8)
_WALL_TIME, _STEP, _SUMMARY = 0x09, 0x10, 0x2A
_NAMED_MESSAGE, _SIMPLE_VALUE = 0x0A, 0x15
_TENSOR_OF_ONE_FLOAT = bytes([0x42, 0x0A, 0x08, 0x01, 0x12, 0x00, 0x22, 0x04])
_LONGEST_STEP = 6
_CONTINUED = 0x80


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The scalars of one tag as columns; `places` are the offsets of the payloads."""

    tag: str
    places: _Places
    steps: _Places
    times: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The result for records of one size: scalars, payloads to decode one by one, and those with a wrong checksum."""

    rows: list[Rows]
    rest: list[int]
    wrong: list[int]


def take_rows(data: bytes, places: Any, size: int, *, offset: int) -> Taken:
    """Decode the records of one size in a piece of a file.

    Args:
        data: The piece; behind each payload are the 4 bytes of its masked CRC-32C.
        places: The offsets of the payloads in the piece: an array of integers.
        size: The bytes of each payload.
        offset: The offset of the piece in the file.
    """
    taken = Taken(rows=[], rest=[], wrong=[])
    if len(places) < _FEWEST or not 25 <= size <= LONGEST:  # noqa: PLR2004 - no scalar is shorter
        taken.rest.extend(places.tolist())
        return taken
    whole = np.frombuffer(data, dtype=np.uint8)
    table = np.lib.stride_tricks.sliding_window_view(whole, size + 4)[places]
    left = np.ones(len(places), dtype=bool)
    for layout in _layouts(table, size):
        chosen = layout.chosen
        if len(chosen) >= _FEWEST:
            _take(table[chosen], places[chosen], size, layout, offset=offset, taken=taken)
            left[chosen] = False
    taken.rest.extend(places[left].tolist())
    return taken


class _Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that have their step and their value at the same places."""

    chosen: Any
    step_bytes: int
    value: int


def _layouts(table: _Bytes, size: int) -> Iterator[_Layout]:
    """Yield the layouts of event.proto's scalars: Event(wall_time, step, summary(one value(tag, …)))."""
    head = np.ascontiguousarray(table[:, :24].T)
    timed = head[0] == _WALL_TIME
    for step_bytes in range(_LONGEST_STEP + 1):
        begin = 9 + (step_bytes + 1 if step_bytes else 0)
        if begin + 6 >= size:
            return
        like = timed & (head[begin] == _SUMMARY) & (head[begin + 1] == size - begin - 2)
        like &= (head[begin + 2] == _NAMED_MESSAGE) & (head[begin + 3] == size - begin - 4)
        like &= head[begin + 4] == _NAMED_MESSAGE
        if step_bytes:
            like &= head[9] == _STEP
            like &= (head[10 : 9 + step_bytes] >= _CONTINUED).all(axis=0)
            like &= head[9 + step_bytes] < _CONTINUED
        counts = np.bincount(head[begin + 5][like], minlength=1)
        for length in np.flatnonzero(counts >= _FEWEST).tolist():
            after = begin + 6 + length
            named = like & (head[begin + 5] == length)
            if after + 5 == size:
                yield _layout(named & (table[:, after] == _SIMPLE_VALUE), step_bytes, after + 1)
            elif after + len(_TENSOR_OF_ONE_FLOAT) + 4 <= size:
                value = after + len(_TENSOR_OF_ONE_FLOAT)
                form = np.frombuffer(_TENSOR_OF_ONE_FLOAT, dtype=np.uint8)
                named &= (table[:, after:value] == form).all(axis=1)
                yield _layout(named, step_bytes, value)


def _layout(named: npt.NDArray[np.bool_], step_bytes: int, value: int) -> _Layout:
    return _Layout(chosen=np.flatnonzero(named), step_bytes=step_bytes, value=value)


def _take(
    table: _Bytes, places: _Places, size: int, layout: _Layout, *, offset: int, taken: Taken
) -> None:
    """Decode the rows of one layout, tag by tag."""
    free = [*range(1, 9), *range(10, 10 + layout.step_bytes)]
    free += range(layout.value, layout.value + 4)
    common = np.zeros((len(table), -(-size // 8) * 8), dtype=np.uint8)
    common[:, :size] = table[:, :size]
    common[:, 1:9] = common[:, 10 : 10 + layout.step_bytes] = 0
    common[:, layout.value : layout.value + 4] = 0
    words = common.view("<u8")
    firsts, kind = _alike(words)
    same = (words == words[firsts][kind]).all(axis=1)
    tags = [_only_tag(table[first, :size].tobytes()) for first in firsts.tolist()]
    known = same & np.array([tag is not None for tag in tags])[kind]
    whole = _checksums_fit(table, size, firsts, kind, free)
    taken.rest.extend(places[~known].tolist())
    taken.wrong.extend(places[known & ~whole].tolist())
    steps = _steps(table, layout.step_bytes)
    times = np.ascontiguousarray(table[:, 1:9]).view("<f8")[:, 0]
    values = np.ascontiguousarray(table[:, layout.value : layout.value + 4]).view("<f4")[:, 0]
    for number, tag in enumerate(tags):
        if tag is None:
            continue
        mine = np.flatnonzero(known & whole & (kind == number))
        taken.rows.append(
            Rows(
                tag=tag,
                places=places[mine] + offset,
                steps=steps[mine],
                times=times[mine],
                values=values[mine].astype(np.float64),
            )
        )


def _alike(common: npt.NDArray[np.uint64]) -> tuple[_Places, _Places]:
    """Group rows by their common bytes: return the first row of each kind, and the kind of each row.

    Kinds are groups of equal hashes, so the caller has to compare the bytes as well.
    """
    random = np.random.default_rng(2017)
    weights = random.integers(1, 1 << 63, size=common.shape[1], dtype=np.uint64)
    hashes = (common * weights).sum(axis=1, dtype=np.uint64)
    _, firsts, kind = np.unique(hashes, return_index=True, return_inverse=True)
    return firsts, kind


def _checksums_fit(
    table: _Bytes, size: int, firsts: _Places, kind: _Places, free: list[int]
) -> npt.NDArray[np.bool_]:
    """Compare each row's CRC with the one computed from the first row of its kind and the bytes that differ."""
    crcs = [crc32c(table[first, :size].tobytes()) for first in firsts.tolist()]
    expected = np.array(crcs, dtype=np.uint32)[kind]
    zeros = _crc_before_zeros(size)
    first_rows = table[firsts]
    for column in free:
        differs = table[:, column] ^ first_rows[:, column][kind]
        expected ^= zeros[size - 1 - column][differs]
    stored = np.ascontiguousarray(table[:, size : size + 4]).view("<u4")[:, 0]
    turned = stored - _MASK_DELTA
    found = (turned >> np.uint32(17)) | (turned << np.uint32(15))
    return np.asarray(found == expected)


@lru_cache(maxsize=16)
def _crc_before_zeros(size: int) -> list[npt.NDArray[np.uint32]]:
    """Return for n from 0 to size - 1 a table: what each byte, followed by n zero bytes, adds to a CRC."""
    one = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = np.where(one & 1, (one >> 1) ^ np.uint32(_POLYNOMIAL), one >> 1).astype(np.uint32)
    tables = [one]
    for _ in range(size - 1):
        last = tables[-1]
        tables.append((last >> np.uint32(8)) ^ one[last & np.uint32(0xFF)])
    return tables


def _steps(table: _Bytes, step_bytes: int) -> _Places:
    """Decode the varints of the steps."""
    steps = np.zeros(len(table), dtype=np.int64)
    for number in range(step_bytes):
        steps |= (table[:, 10 + number] & 0x7F).astype(np.int64) << (7 * number)
    return steps


# where records lie ------------------------------------------------------------------------------------
#
# This part finds the records in a piece of a TFRecord file, in leaps where their lengths repeat.
#
# The format is TensorFlow's (core/lib/io/record_writer.h): length, masked CRC-32C of the length, payload, masked
# CRC-32C of the payload. A training loop writes records of the same lengths in the same order, step after step. So
# once we see a cycle, we know where the next heads should be, and compare many of them at once.

HEAD = 12
FOOT = 4
_LOOK_BACK = 240
_LONGEST_CYCLE = 80
_FIRST_LEAP, _LONGEST_LEAP = 64, 65_536


class Framed(msgspec.Struct, frozen=True, kw_only=True):
    """The records that lie whole in a piece: the offsets of their payloads, by size.

    `end` is where the last whole record ends. The next record is cut off at the end of the piece; `next_size` is its
    size if its head is there. Or it is `damaged`: its head has a wrong checksum.
    """

    places: dict[int, Any]
    large: list[tuple[int, int]]
    """The offsets and sizes of large payloads."""
    end: int
    next_size: int = -1
    damaged: bool = False


def frame(piece: bytes, *, heads: dict[bytes, int]) -> Framed:
    """Find the records of a piece, which begins with a record.

    `heads` are the lengths of heads with a right checksum; this function adds new ones.
    """
    found: dict[int, list[int]] = defaultdict(list)
    leaps: list[tuple[int, npt.NDArray[np.int64]]] = []
    recent: list[bytes] = []
    apart: list[tuple[int, int]] = []
    begin, most, wait = 0, len(piece) - HEAD, _LOOK_BACK
    size = -1
    bad = False
    while begin <= most:
        head = piece[begin : begin + HEAD]
        size = heads.get(head, -1)
        if size < 0:
            size = length_of(head)
            if size < 0:
                bad = True
                break
            heads[head] = size
        end = begin + HEAD + size + FOOT
        if end > len(piece):
            break
        if size > _LARGE:
            apart.append((begin + HEAD, size))
            begin = end
            recent = []
            continue
        found[size].append(begin + HEAD)
        begin = end
        recent.append(head)
        if len(recent) >= wait:
            cycle = _cycle(recent)
            if cycle:
                begin = _leap(piece, begin, cycle, heads, leaps)
            # If nothing repeats, a search after every few records would cost more than it saves.
            wait = 3 * len(cycle) if cycle else min(4 * max(wait, _LOOK_BACK), 16 * _LOOK_BACK)
            recent = []
    arrays: dict[int, list[Any]] = {one: [np.asarray(at, np.int64)] for one, at in found.items()}
    for one, at in leaps:
        arrays.setdefault(one, []).append(at)
    joined = {one: np.sort(np.concatenate(at)) for one, at in arrays.items()}
    return Framed(
        places=joined,
        large=apart,
        end=begin,
        next_size=size if begin <= most and not bad else -1,
        damaged=bad,
    )


def length_of(head: bytes) -> int:
    """Return the length in a record's head, or -1 if its checksum is wrong."""
    length, stored = struct.unpack("<QI", head)
    return int(length) if crc32c(head[:8]) == unmask(stored) and length < 1 << 62 else -1


def _cycle(recent: list[bytes]) -> list[bytes]:
    """Return the shortest sequence that the last heads repeat three times; empty if there is none."""
    last = recent[-1]
    for length in range(1, _LONGEST_CYCLE + 1):
        if len(recent) < 3 * length:
            break
        if recent[-1 - length] != last:
            continue
        cycle = recent[-length:]
        if cycle == recent[-2 * length : -length] == recent[-3 * length : -2 * length]:
            return cycle
    return []


def _leap(
    piece: bytes,
    begin: int,
    cycle: list[bytes],
    heads: dict[bytes, int],
    leaps: list[tuple[int, npt.NDArray[np.int64]]],
) -> int:
    """Skip whole cycles as long as the heads are where the cycle puts them, and return the end of the last cycle."""
    sizes = [heads[head] for head in cycle]
    steps = np.cumsum([0, *(HEAD + size + FOOT for size in sizes)])
    stride = int(steps[-1])
    expected = np.frombuffer(b"".join(cycle), dtype=np.uint8).reshape(len(cycle), HEAD)
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(piece, np.uint8), HEAD)
    count = _FIRST_LEAP
    while True:
        count = min(count, (len(piece) - begin) // stride)
        if count == 0:
            return begin
        at = begin + stride * np.arange(count)[:, None] + steps[None, :-1]
        right = (windows[at.ravel()].reshape(count, len(cycle), HEAD) == expected).all(axis=(1, 2))
        good = count if right.all() else int(np.argmin(right))
        leaps.extend((size, at[:good, place] + HEAD) for place, size in enumerate(sizes))
        begin += good * stride
        if good < count:
            return begin
        count = min(4 * count, _LONGEST_LEAP)


MOST_NUMBERS = 10_000_000
"""The most scalars of a folder. All are in memory together, with some 70 bytes each; 900 MB of files have so many."""
MOST_TAGS = 10_000

# the file ---------------------------------------------------------------------------------------------

_PIECE = 8 << 20
_LARGE = 64 << 10
"""Larger payloads are not decoded; only their fields are visited."""
_HUGE = 1 << 20
"""Larger payloads are not even read. To skip smaller ones would take longer than to read them."""
_LONGEST_TAG = 4096
_WAITING = 100_000
"""The most single scalars in memory; then they are put into columns, where they take a quarter of it."""
_SUMMARY_FIELD = 5
_PLUGINS = ("", "scalars")
_TENSORS = {1: "<f", 2: "<d", 3: "<i", 9: "<q", 14: "bfloat16", 19: "<e", 22: "<I", 23: "<Q"}
"""The formats of scalars, by DataType (types.proto)."""


class _Scalar(msgspec.Struct, frozen=True):
    """One value of one tag; `place` orders the values of a file."""

    tag: str
    place: int
    step: int
    time: float
    value: float


class EventFile(msgspec.Struct, frozen=True, kw_only=True):
    """The scalars of one file, and the problems with it."""

    rows: list[Rows]
    numbers: int
    """Scalars in these rows."""
    alone: int
    """How many of them were decoded one by one."""
    records: int
    problems: tuple[str, ...]
    """What could not be read, in words. All other parts were read."""


class TooMuch(Exception):
    """There are more scalars or tags than may be in memory."""


def read_events(path: str, *, progress: Progress = silent, most: int = MOST_NUMBERS) -> EventFile:
    """Read the scalars of an event file: `simple_value`, and tensors of one number.

    The readable parts of a broken file are read. A record with a damaged payload is skipped; behind a damaged length
    no more records can be found. `progress` is called with the bytes that are done.

    Raises:
        TooMuch: It has more than `most` scalars, or too many tags. A part of them is not enough, because its last
            and best values may not be those of the whole.
    """
    reader = _Reader(progress, most=most)
    try:
        with opened_plain(path) as descriptor:
            return reader.read(descriptor, os.fstat(descriptor).st_size)
    except OSError as error:
        return reader.done([f"it cannot be read: {error.strerror}"])


class _Reader:
    """Reads a file piece by piece."""

    def __init__(self, progress: Progress, *, most: int) -> None:
        self._progress = progress
        self._most = most
        self._rows: list[Rows] = []
        self._scalars: list[_Scalar] = []
        self._tags: set[str] = set()
        self._numbers = 0
        self._alone = 0
        self._records = 0
        self._reported = 0
        self._damaged = 0
        self._first_damage = 0
        self._heads: dict[bytes, int] = {}

    def done(self, problems: list[str]) -> EventFile:
        """Return what was read, and the problems."""
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
        """Read a file up to a size; bytes that are appended meanwhile are not read."""
        try:
            return self._read(descriptor, size)
        finally:
            self._progress(size - self._reported)

    def _read(self, descriptor: int, size: int) -> EventFile:
        at = 0
        while at < size:
            self._progress(at - self._reported)
            self._reported = at
            piece = os.pread(descriptor, min(_PIECE, size - at), at)
            framed = frame(piece, heads=self._heads)
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
        """Decode the scalars of a piece's records."""
        for size, places in found.items():
            self._records += len(places)
            taken = take_rows(piece, places, size, offset=at)
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
        """Put the scalars that were decoded one by one into columns."""
        self._alone += len(self._scalars)
        self._keep(_columns(self._scalars))
        self._scalars = []

    def _keep(self, rows: list[Rows]) -> None:
        self._rows += rows
        self._numbers += sum(len(one.places) for one in rows)
        self._tags.update(one.tag for one in rows)
        if self._numbers > self._most or len(self._tags) > MOST_TAGS:
            raise TooMuch

    def _damage(self, place: int) -> None:
        self._first_damage = min(self._first_damage, place) if self._damaged else place
        self._damaged += 1

    def _walk_large(self, descriptor: int, begin: int, length: int) -> None:
        """Decode the scalars of a large record, without reading the images or the like between them."""
        self._records += 1
        step, time = 0, 0.0
        place = begin
        try:
            for number, kind, value, size in _fields(descriptor, begin, begin + length):
                if number == 1 and kind == FIXED64:
                    time = struct.unpack("<d", value)[0]
                elif number == 2 and kind == VARINT:  # noqa: PLR2004 - Event.step
                    step = size - (1 << 64) if size >> 63 else size
                elif number == _SUMMARY_FIELD and kind == LENGTH_DELIMITED:
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
    """Decode one payload in full, and return its tag if it has exactly one scalar."""
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
    """Return the number in a tensor without dimensions; None for any other tensor."""
    form = _TENSORS.get(tensor.dtype)
    if form is None or tensor.tensor_shape.dim or tensor.tensor_shape.unknown_rank:
        return None
    content = tensor.tensor_content
    if form == "bfloat16":
        bits = int.from_bytes(content, "little") if content else (*tensor.half_val, 0)[0]
        return float(struct.unpack("<f", struct.pack("<I", (bits & 0xFFFF) << 16))[0])
    if content:
        fits = len(content) == struct.calcsize(form)
        return float(struct.unpack(form, content)[0]) if fits else None
    if form == "<e":
        return float(struct.unpack("<e", struct.pack("<H", (*tensor.half_val, 0)[0] & 0xFFFF))[0])
    names = ("float_val", "double_val", "int_val", "int64_val", "uint32_val", "uint64_val")
    # A missing value means zero (tensor.proto repeats the last value, and there is none).
    return next((float(getattr(tensor, name)[0]) for name in names if getattr(tensor, name)), 0.0)


def _values(descriptor: int, begin: int, end: int) -> Iterator[Any]:
    """Yield the values of a Summary that are small enough to be scalars."""
    for number, kind, value, size in _fields(descriptor, begin, end):
        if number == 1 and kind == LENGTH_DELIMITED and size <= _LONGEST_TAG:
            at = int.from_bytes(value, "little")
            yield summary_pb2.Summary.Value.FromString(os.pread(descriptor, size, at))


def _fields(descriptor: int, begin: int, end: int) -> Iterator[tuple[int, int, bytes, int]]:
    """Yield a message's fields without reading their contents.

    A field is its number, its wire type, its bytes (of a fixed-size field) or its offset in the file, and its size
    (of a varint: its value).

    Raises:
        ValueError: The bytes are no message.
    """
    at = begin
    while at < end:
        head = os.pread(descriptor, 20, at)
        key, used = read_varint(head, 0)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, used = read_varint(head, used)
            yield number, kind, b"", value
            at += used
        elif kind in {FIXED64, FIXED32}:
            width = 8 if kind == FIXED64 else 4
            yield number, kind, head[used : used + width], width
            at += used + width
        elif kind == LENGTH_DELIMITED:
            size, used = read_varint(head, used)
            at += used
            if at + size > end:
                raise ValueError("a field is longer than its message")
            yield number, kind, at.to_bytes(8, "little"), size
            at += size
        else:
            raise ValueError(f"wire type {kind}")
