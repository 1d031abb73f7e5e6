"""Where the records of a piece of a TFRecord file lie, found in leaps where they repeat.

The format is TensorFlow's (core/lib/io/record_writer.h): length, masked CRC-32C of the length, payload, masked
CRC-32C of the payload. A training loop writes records of the same lengths in the same order step after step.
So once a cycle is seen, the next heads are expected where the cycle puts them, and compared there all at once.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from servingrepo.savedmodel.crc32c import crc32c, unmask

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FOOT", "HEAD", "Framed", "frame"]

HEAD = 12
FOOT = 4
_LOOK_BACK = 240
_LONGEST_CYCLE = 80
_FIRST_LEAP, _LONGEST_LEAP = 64, 65_536


class Framed(msgspec.Struct, frozen=True, kw_only=True):
    """The records that lie whole in a piece: the places of payloads by their size.

    `end` is where the last record ends; the next, of `next_size` bytes if its head is there, does not lie whole in
    the piece, or is `damaged`: its head has a wrong checksum.
    """

    places: dict[int, Any]
    large: list[tuple[int, int]]
    """Places and sizes of large payloads."""
    end: int
    next_size: int = -1
    damaged: bool = False


def frame(piece: bytes, *, heads: dict[bytes, int], large: int) -> Framed:
    """Find the records of a piece.

    Args:
        piece: Bytes of a file from the begin of a record on.
        heads: Heads whose checksum was found right, with their lengths; it is added to.
        large: Payloads of more bytes are listed apart.
    """
    found: dict[int, list[int]] = {}
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
        if size > large:
            apart.append((begin + HEAD, size))
            begin = end
            recent = []
            continue
        places = found.get(size)
        if places is None:
            found[size] = [begin + HEAD]
        else:
            places.append(begin + HEAD)
        begin = end
        recent.append(head)
        if len(recent) >= wait:
            cycle = _cycle(recent)
            if cycle:
                begin = _leap(piece, begin, cycle, heads, leaps)
            # Where nothing repeats, looking for it again and again would cost more than it saves.
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
    """Return the length that a record's head says, or -1 if its checksum is wrong."""
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
    """Go on in whole cycles for as long as the heads are where they should be; return where that ends."""
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
