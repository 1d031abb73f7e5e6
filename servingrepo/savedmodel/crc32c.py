"""CRC-32C (Castagnoli), and the mask with which TensorFlow stores it in bundles and TFRecord files."""

from __future__ import annotations

import google_crc32c

__all__ = ["crc32c", "mask", "unmask"]

_WORTH_A_VIEW = 16 << 10

_MASK_DELTA = 0xA282EAD8
_WORD = 0xFFFFFFFF


def crc32c(data: bytes | memoryview, *, start: int = 0) -> int:
    """Return the CRC-32C of `data`; `start` is the CRC of what came before it."""
    value: int = google_crc32c.extend(start, data if type(data) is bytes else _as_buffer(data))
    return value


def _as_buffer(data: bytes | memoryview) -> object:
    """Return the bytes in a form that the package takes: one whose memory needs no release (Python's `y#`).

    That is `bytes`, a copy, or an array of ctypes that lies where the bytes are.
    """
    if len(data) < _WORTH_A_VIEW or not isinstance(data, memoryview) or data.readonly:
        return bytes(data)
    import ctypes  # most commands never have so many bytes

    return (ctypes.c_ubyte * len(data)).from_buffer(data)


def mask(crc: int) -> int:
    """Return the form in which TensorFlow stores a CRC (xla/tsl/lib/hash/crc32c.h)."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _WORD


def unmask(stored: int) -> int:
    """Return the CRC behind a stored, masked one."""
    rotated = (stored - _MASK_DELTA) & _WORD
    return ((rotated >> 17) | (rotated << 15)) & _WORD
