"""Read protobuf's wire format where no message class is at hand: its numbers, and the fields of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FIXED32", "FIXED64", "LENGTH_DELIMITED", "VARINT", "BadVarint", "fields", "read_varint"]

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_CONTINUED = 0x80
_BITS = 64


class BadVarint(ValueError):
    """A number has more than 64 bits, or the data ends within it."""


def read_varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return the number at an offset, seven bits to a byte, and the offset behind it.

    Raises:
        BadVarint: It has more than 64 bits, or does not end.
    """
    value = shift = 0
    while at < len(data) and shift < _BITS:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUED:
            return value, at
        shift += 7
    raise BadVarint("a number has more than 64 bits, or does not end")


def fields(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (number, start of the tag, start, end) of each field of a message that protobuf itself has written."""
    at = start
    while at < end:
        tag = at
        key = data[at]
        at += 1
        if key >= _CONTINUED:  # most tags, and most sizes below, have one byte
            key, at = read_varint(data, tag)
        kind = key & 7
        first = at
        if kind == LENGTH_DELIMITED:
            size = data[at]
            first = at + 1
            if size >= _CONTINUED:
                size, first = read_varint(data, at)
            at = first + size
        elif kind == VARINT:
            _, at = read_varint(data, at)
        elif kind == FIXED64:
            at += 8
        elif kind == FIXED32:
            at += 4
        else:
            return  # a group: only among unknown fields, which come last
        yield key >> 3, tag, first, at
