"""Scalars of many equally long event records at once, with numpy.

A training loop writes the same few tags again and again, so most records of a file differ only in their wall
time, step and value. Records of one length are laid side by side; those that also agree in all other bytes
are decoded as columns, and their checksums follow from one of them, because a CRC is linear. Whatever looks
different is left to the reader that takes records one by one, which also says what the common bytes mean.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from servingrepo.savedmodel.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LONGEST", "Rows", "take_rows"]

LONGEST = 135
"""Payloads of more bytes have lengths of two bytes inside, and are taken one by one."""

_Bytes = npt.NDArray[np.uint8]
_Places = npt.NDArray[np.int64]

_FEWEST = 16
"""Records that are worth being decoded together: of fewer, each takes longer than alone."""
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_MASK_DELTA = np.uint32(0xA282EAD8)
_WALL_TIME, _STEP, _SUMMARY = 0x09, 0x10, 0x2A
_MESSAGE, _SIMPLE_VALUE = 0x0A, 0x15
_TENSOR_OF_ONE_FLOAT = bytes([0x42, 0x0A, 0x08, 0x01, 0x12, 0x00, 0x22, 0x04])
_LONGEST_STEP = 6
_CONTINUED = 0x80


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The scalars of one tag: where each record's payload begins, and what it says."""

    tag: str
    places: _Places
    steps: _Places
    times: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of records: scalars, payloads to be read one by one, and payloads with a wrong checksum."""

    rows: list[Rows]
    rest: list[int]
    wrong: list[int]


def take_rows(
    data: bytes, places: Any, size: int, *, offset: int, tag_of: Callable[[bytes], str | None]
) -> Taken:
    """Decode the records of one size in a piece of a file.

    Args:
        data: The piece; each payload in it is followed by its 4 bytes of masked CRC-32C.
        places: Where the payloads begin: an array of integers.
        offset: Where in the file the piece begins.
        size: How many bytes each has.
        tag_of: Reads one payload in full: its tag if it has exactly one scalar, else None.
    """
    taken = Taken(rows=[], rest=[], wrong=[])
    if len(places) < _FEWEST or not 25 <= size <= LONGEST:  # noqa: PLR2004 - no scalar is shorter
        taken.rest.extend(places.tolist())
        return taken
    at = places
    whole = np.frombuffer(data, dtype=np.uint8)
    table = np.lib.stride_tricks.sliding_window_view(whole, size + 4)[at]
    left = np.ones(len(at), dtype=bool)
    for layout in _layouts(table, size):
        if len(layout.chosen) < _FEWEST:
            continue
        _take(
            table[layout.chosen],
            at[layout.chosen],
            size,
            layout,
            offset=offset,
            tag_of=tag_of,
            taken=taken,
        )
        left[layout.chosen] = False
    taken.rest.extend(at[left].tolist())
    return taken


class _Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows have their step and their value at the same place."""

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
        like &= (head[begin + 2] == _MESSAGE) & (head[begin + 3] == size - begin - 4)
        like &= head[begin + 4] == _MESSAGE
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
    table: _Bytes,
    places: _Places,
    size: int,
    layout: _Layout,
    *,
    offset: int,
    tag_of: Callable[[bytes], str | None],
    taken: Taken,
) -> None:
    """Decode rows of one layout, a tag at a time."""
    free = [*range(1, 9), *range(10, 10 + layout.step_bytes)]
    free += range(layout.value, layout.value + 4)
    common = np.zeros((len(table), -(-size // 8) * 8), dtype=np.uint8)
    common[:, :size] = table[:, :size]
    common[:, 1:9] = common[:, 10 : 10 + layout.step_bytes] = 0
    common[:, layout.value : layout.value + 4] = 0
    words = common.view("<u8")
    firsts, kind = _alike(words)
    same = (words == words[firsts][kind]).all(axis=1)
    tags = [tag_of(table[first, :size].tobytes()) for first in firsts.tolist()]
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
    """Sort rows by what they have in common: the first row of each kind, and each row's kind.

    Kinds are told apart by a hash, so the caller compares the bytes as well.
    """
    random = np.random.default_rng(2017)
    weights = random.integers(1, 1 << 63, size=common.shape[1], dtype=np.uint64)
    hashes = (common * weights).sum(axis=1, dtype=np.uint64)
    _, firsts, kind = np.unique(hashes, return_index=True, return_inverse=True)
    return firsts, kind


def _checksums_fit(
    table: _Bytes, size: int, firsts: _Places, kind: _Places, free: list[int]
) -> npt.NDArray[np.bool_]:
    """Compare each row's CRC with the one that follows from its kind's first row and the bytes that differ."""
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
    """Return, for n from 0 to size - 1, what a byte followed by n zero bytes adds to a CRC."""
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
