"""CRC-32C (Castagnoli) and the mask that TensorFlow stores it with.

Pure Python, a few MB/s: meant for index blocks and small records, not for weights.
"""

from __future__ import annotations

__all__ = ["crc32c", "mask", "unmask"]

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_WORD = 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_TABLE = _table()


def crc32c(data: bytes | memoryview, *, start: int = 0) -> int:
    """Return the CRC-32C of `data`; `start` is the CRC of what came before it."""
    value = start ^ _WORD
    table = _TABLE
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ _WORD


def mask(crc: int) -> int:
    """Return the form in which TensorFlow stores a CRC (xla/tsl/lib/hash/crc32c.h)."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _WORD


def unmask(stored: int) -> int:
    """Return the CRC behind a stored, masked one."""
    rotated = (stored - _MASK_DELTA) & _WORD
    return ((rotated >> 17) | (rotated << 15)) & _WORD
