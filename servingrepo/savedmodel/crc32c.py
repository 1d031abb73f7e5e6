"""CRC-32C (Castagnoli), and the mask with which TensorFlow stores it in bundles and TFRecord files."""

from __future__ import annotations

import google_crc32c

__all__ = ["crc32c", "mask", "unmask"]

_MASK_DELTA = 0xA282EAD8
_WORD = 0xFFFFFFFF


def crc32c(data: bytes, *, start: int = 0) -> int:
    """Return the CRC-32C of `data`; `start` is the CRC of what came before it."""
    value: int = google_crc32c.extend(start, data)
    return value


def mask(crc: int) -> int:
    """Return the form in which TensorFlow stores a CRC (xla/tsl/lib/hash/crc32c.h)."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _WORD


def unmask(stored: int) -> int:
    """Return the CRC behind a stored, masked one."""
    rotated = (stored - _MASK_DELTA) & _WORD
    return ((rotated >> 17) | (rotated << 15)) & _WORD
