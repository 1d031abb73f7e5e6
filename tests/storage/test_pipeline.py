from __future__ import annotations

import threading

import pytest

from servingrepo.storage.pipeline import beside


def test_another_thread_takes_all_chunks_in_order_before_the_block_ends() -> None:
    taken = bytearray()
    threads = set()

    def take(data: memoryview) -> None:
        threads.add(threading.get_ident())
        taken.extend(data)

    with beside(take, chunk=3) as chunks:
        for number in range(100):
            room = chunks.room()
            room[:] = bytes([number] * 3)
            chunks.give(room[: number % 4])
    assert bytes(taken) == b"".join(bytes([number] * (number % 4)) for number in range(100))
    assert threads.isdisjoint({threading.get_ident()})


def test_a_chunk_stays_until_the_next_room() -> None:
    slow = threading.Event()
    rooms = set()

    with beside(lambda _: slow.wait(0.01), chunk=8) as chunks:
        for number in range(20):
            room = chunks.room()
            rooms.add(id(room.obj))
            room[0] = number
            chunks.give(room)
            assert room[0] == number
    assert 1 < len(rooms) < 10


def test_an_error_of_the_other_thread_is_raised() -> None:
    seen = []

    def take(data: memoryview) -> None:
        seen.append(bytes(data))
        raise OSError("no more")

    def read() -> None:
        with beside(take, chunk=1) as chunks:
            for _ in range(50):
                room = chunks.room()
                room[0] = 7
                chunks.give(room)

    with pytest.raises(OSError, match="no more"):
        read()
    assert seen == [b"\7"]


@pytest.mark.timeout(20)
def test_a_reader_stops_when_the_other_thread_failed() -> None:
    def take(_: memoryview) -> None:
        raise OSError("no space")

    def read_for_ever() -> None:
        with beside(take, chunk=1) as chunks:
            while True:
                chunks.give(chunks.room())

    with pytest.raises(OSError, match="no space"):
        read_for_ever()


def test_a_reader_that_fails_leaves_no_thread() -> None:
    def read() -> None:
        with beside(len, chunk=1) as chunks:
            chunks.room()
            raise ValueError("unreadable")

    before = threading.active_count()
    with pytest.raises(ValueError, match="unreadable"):
        read()
    assert threading.active_count() == before
