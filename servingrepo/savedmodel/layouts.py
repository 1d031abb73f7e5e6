"""The checksum of one tensor, from its bytes as they come: plain numbers, strings and variants.

From tensorflow/core/util/tensor_bundle/tensor_bundle.cc (WriteStringTensor, WriteVariantTensor). The checksum of
strings and variants is not that of the bytes in the file: lengths count as numbers of fixed width.
"""

from __future__ import annotations

import array
import struct
import sys
from typing import Protocol

from servingrepo.savedmodel.crc32c import crc32c, mask

__all__ = ["BrokenLayout", "Plain", "Strings", "TensorBytes", "Variants"]

_UINT32 = (1 << 32) - 1
_UINT64 = (1 << 64) - 1
_CRC_BYTES = 4
_CONTINUES = 0x80
_MAX_SHIFT = 63


class BrokenLayout(ValueError):
    """The bytes cannot be strings or variants; the message says why."""


class TensorBytes(Protocol):
    """Takes the bytes of one tensor in order."""

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes; their memory may hold others afterwards.

        Raises:
            BrokenLayout: They cannot be.
        """

    def finish(self) -> int:
        """Return the checksum of what was fed.

        Raises:
            BrokenLayout: It is not whole.
        """


class Plain:
    """Elements of fixed size: the checksum of the bytes."""

    def __init__(self) -> None:
        self._crc = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._crc = crc32c(data, start=self._crc)

    def finish(self) -> int:
        """Return the checksum of what was fed."""
        return self._crc


class _Varint:
    """A number of up to 64 bits, seven bits to a byte, that may come in two parts."""

    def __init__(self) -> None:
        self._value = self._shift = 0

    @property
    def begun(self) -> bool:
        """Whether a part was taken."""
        return self._shift > 0

    def take(self, data: bytes, at: int) -> tuple[int | None, int]:
        """Return the number, or None if it goes on in the next part, and where what follows begins."""
        while at < len(data):
            byte = data[at]
            at += 1
            self._value |= (byte & 0x7F) << self._shift
            if byte < _CONTINUES:
                value, self._value, self._shift = self._value, 0, 0
                if value > _UINT64:
                    raise BrokenLayout("a length has more than 64 bits")
                return value, at
            self._shift += 7
            if self._shift > _MAX_SHIFT:
                raise BrokenLayout("a length has more than 64 bits")
        return None, at


class Strings:
    """Strings: all lengths, the masked checksum of the lengths, all bytes."""

    def __init__(self, elements: int) -> None:
        self._left = elements
        self._text = 0
        self._crc = 0
        self._stored = b""
        self._length = _Varint()

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        data = bytes(data)
        at = self._lengths(data) if self._left else 0
        if not self._left and len(self._stored) < _CRC_BYTES:
            more = data[at : at + _CRC_BYTES - len(self._stored)]
            self._stored += more
            at += len(more)
            if len(self._stored) == _CRC_BYTES:
                if self._stored != struct.pack("<I", mask(self._crc)):
                    raise BrokenLayout("the checksum of its strings' lengths is wrong")
                self._crc = crc32c(self._stored, start=self._crc)
        rest = data[at:] if at else data
        self._text -= len(rest)
        if not self._left and self._text < 0:
            raise BrokenLayout("its strings are shorter than its place")
        self._crc = crc32c(rest, start=self._crc)

    def finish(self) -> int:
        """Return the checksum of what was fed."""
        if self._left or self._text or len(self._stored) < _CRC_BYTES:
            raise BrokenLayout("its strings are longer than its place")
        return self._crc

    def _lengths(self, data: bytes) -> int:
        """Take lengths, and return where what follows them begins."""
        short = data[: self._left]
        if short.isascii() and not self._length.begun:
            # Strings of up to 127 bytes, which most are: each length is one byte.
            numbers = array.array("I", list(short))
            if sys.byteorder == "big":
                numbers.byteswap()
            self._crc = crc32c(numbers.tobytes(), start=self._crc)
            self._text += sum(short)
            self._left -= len(short)
            return len(short)
        at = 0
        while self._left:
            length, at = self._length.take(data, at)
            if length is None:
                break
            packed = struct.pack("<I" if length <= _UINT32 else "<Q", length)
            self._crc = crc32c(packed, start=self._crc)
            self._text += length
            self._left -= 1
        return at


class Variants:
    """Variants: for each its length, its bytes, and the masked checksum of all up to there."""

    def __init__(self, elements: int) -> None:
        self._left = elements
        self._bytes = 0
        self._crc = 0
        self._stored = b""
        self._inside = False
        self._length = _Varint()

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        data = bytes(data)
        at = 0
        while at < len(data):
            if not self._inside:
                if not self._left:
                    raise BrokenLayout("its variants are shorter than its place")
                length, at = self._length.take(data, at)
                if length is None:
                    return
                self._crc = crc32c(struct.pack("<Q", length), start=self._crc)
                self._bytes, self._inside, self._stored = length, True, b""
            if self._bytes:
                piece = data[at : at + self._bytes]
                self._crc = crc32c(piece, start=self._crc)
                self._bytes -= len(piece)
                at += len(piece)
            if not self._bytes:
                at = self._checksum(data, at)

    def finish(self) -> int:
        """Return the checksum of what was fed."""
        if self._left or self._inside:
            raise BrokenLayout("its variants are longer than its place")
        return self._crc

    def _checksum(self, data: bytes, at: int) -> int:
        more = data[at : at + _CRC_BYTES - len(self._stored)]
        self._stored += more
        if len(self._stored) == _CRC_BYTES:
            if self._stored != struct.pack("<I", mask(self._crc)):
                raise BrokenLayout("the checksum of one of its variants is wrong")
            self._crc = crc32c(self._stored, start=self._crc)
            self._left -= 1
            self._inside = False
        return at + len(more)
