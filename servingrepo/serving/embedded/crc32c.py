"""CRC-32C as TFRecord files store it (xla/tsl/lib/hash/crc32c.h)."""

from __future__ import annotations

__all__ = ["masked_crc32c"]

POLYNOMIAL = 0x82F63B78
MASK_DELTA = 0xA282EAD8


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _table()


def masked_crc32c(data: bytes) -> int:
    """Return the masked CRC-32C of `data`; plain Python, a few MB per second."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (crc >> 15 | crc << 17) + MASK_DELTA & 0xFFFFFFFF
