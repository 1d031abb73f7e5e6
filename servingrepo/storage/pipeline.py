"""Using two cores for the bytes of one file: what is done with a chunk goes on beside reading the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

Shown = Callable[[memoryview], None]
"""Is shown the bytes of a file in order, and none at its end.

The memory belongs to the reader: it may hold other bytes as soon as the call has returned.
"""

Watch = Callable[[str], Shown | None]
"""Asked for each file by its path in the tree what wants to be shown its bytes."""

END = memoryview(b"")
"""What is shown at the end of a file."""

_BUFFERS = 4
"""Chunks that are in memory at a time: one is filled while others wait for their turn."""


class Chunks(Protocol):
    """Room for the next bytes of a file, and the hand-over to what takes them."""

    def room(self) -> memoryview:
        """Return memory to read into."""

    def give(self, data: memoryview) -> None:
        """Have the bytes that were read there taken; they stay as they are until the next `room`."""


class Here:
    """Chunks that are taken at once, in the thread that reads."""

    def __init__(self, take: Callable[[memoryview], object], *, chunk: int) -> None:
        self._take = take
        self._room = memoryview(bytearray(chunk))

    def room(self) -> memoryview:
        """Return memory to read into: the same each time."""
        return self._room

    def give(self, data: memoryview) -> None:
        """Have the bytes taken."""
        self._take(data)


class _Beside:
    """Chunks that another thread takes, in order."""

    def __init__(self, take: Callable[[memoryview], object], *, chunk: int) -> None:
        self._take = take
        self._full: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(memoryview(bytearray(chunk)))
        self._filled = END
        self.failures: list[BaseException] = []

    def room(self) -> memoryview:
        """Return memory that is free again, as soon as there is some."""
        self._filled = self._free.get()
        return self._filled

    def give(self, data: memoryview) -> None:
        """Hand over what was read into the last room; it stays valid until the reader asks for another."""
        self._full.put((self._filled, data))

    def end(self) -> None:
        """Say that there is no more."""
        self._full.put(None)

    def run(self) -> None:
        """Take chunks until the end."""
        while (one := self._full.get()) is not None:
            room, data = one
            try:
                if not self.failures:
                    self._take(data)
            except BaseException as error:  # noqa: BLE001 - it is raised again where the block ends
                self.failures.append(error)
            self._free.put(room)


@contextmanager
def beside(take: Callable[[memoryview], object], *, chunk: int) -> Iterator[Chunks]:
    """Have another thread take chunks, in order; all are taken at the end of the block.

    What `take` raises is raised at the end of the block; chunks after that are dropped.
    """
    chunks = _Beside(take, chunk=chunk)
    thread = threading.Thread(target=chunks.run, name="beside")
    thread.start()
    try:
        yield chunks
    finally:
        chunks.end()
        thread.join()
    if chunks.failures:
        raise chunks.failures[0]
