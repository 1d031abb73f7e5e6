"""Decompress raw snappy, which some writers of tensor bundles use for their index blocks.

The format is google/snappy's format_description.txt. Output is bounded by what the caller allows.
"""

from __future__ import annotations

from servingrepo.savedmodel.wire import BadVarint, read_varint

__all__ = ["BadSnappy", "decompress"]


class BadSnappy(ValueError):
    """The bytes are no snappy, or hold more than is allowed."""


def decompress(data: bytes, *, limit: int) -> bytes:
    """Return what `data` was compressed from.

    Raises:
        BadSnappy: It is not snappy, or would be longer than `limit` bytes.
    """
    try:
        return _decompress(data, limit)
    except (IndexError, BadVarint) as error:
        raise BadSnappy("compressed data ends too early") from error


def _decompress(data: bytes, limit: int) -> bytes:
    expected, at = read_varint(data, 0)
    if expected > limit:
        raise BadSnappy(f"claims {expected} bytes, more than {limit}")
    result = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            size = (tag >> 2) + 1
            if size > 60:  # noqa: PLR2004 - 61 to 64 mean: the length follows in 1 to 4 bytes
                width = size - 60
                size = int.from_bytes(data[at : at + width], "little") + 1
                at += width
            if at + size > len(data):
                raise BadSnappy("a literal is longer than the data")
            result += data[at : at + size]
            at += size
        else:
            if kind == 1:
                size, offset = 4 + ((tag >> 2) & 7), (tag >> 5) << 8 | data[at]
                at += 1
            else:
                width = 2 if kind == 2 else 4  # noqa: PLR2004 - the tag's own numbering
                size, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + width], "little")
                at += width
            if not 0 < offset <= len(result):
                raise BadSnappy("a copy points before the start")
            # A copy may overlap what it writes: repeat the part that is there.
            piece = bytes(result[-offset:][:size])
            result += (piece * (size // len(piece) + 1))[:size]
        if len(result) > expected:
            raise BadSnappy("holds more than it claims")
    if len(result) != expected:
        raise BadSnappy("holds less than it claims")
    return bytes(result)
