from __future__ import annotations

import os

import pytest

from servingrepo.savedmodel.crc32c import crc32c, mask, unmask

CHECK = 0xE3069283
"""Of the digits 1 to 9: the check value in the catalogue of CRCs (CRC-32/ISCSI)."""


def test_the_check_value_is_that_of_the_catalogue() -> None:
    assert crc32c(b"123456789") == CHECK
    assert crc32c(memoryview(b"123456789")) == CHECK
    assert crc32c(b"6789", start=crc32c(b"12345")) == CHECK


@pytest.mark.parametrize("size", [0, 1, (16 << 10) - 1, 16 << 10, (1 << 20) + 3])
def test_bytes_have_one_checksum_wherever_they_lie(size: int) -> None:
    data = os.urandom(size)
    wanted = crc32c(data, start=7)
    around = bytearray(b"before" + data + b"after")
    assert crc32c(memoryview(data), start=7) == wanted
    assert crc32c(memoryview(around)[6 : 6 + size], start=7) == wanted


def test_memory_that_is_used_again_is_read_again() -> None:
    room = memoryview(bytearray(1 << 20))
    first = crc32c(room)
    room[12345] = 1
    assert crc32c(room) == crc32c(bytes(room)) != first


def test_a_mask_is_undone() -> None:
    assert [unmask(mask(crc)) for crc in (0, 1, CHECK)] == [0, 1, CHECK]
