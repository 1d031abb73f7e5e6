"""Use two cores for the bytes of one file: one thread reads the next chunk while another works on the last one."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

Shown = Callable[[memoryview], None]
"""A function that gets the bytes of a file in order, and at its end no bytes.

The memory belongs to the reader: it may hold other bytes as soon as the call has returned.
"""

Watch = Callable[[str], Shown | None]
"""A function that gets the path of a file in the tree, and returns the function that gets its bytes, or None."""

END = memoryview(b"")
"""The bytes that a `Shown` gets at the end of a file."""

_WORTH_A_MAP = 1 << 20
"""Bytes of a chunk from which on its memory is mapped pages."""

_BUFFERS = 4
"""Chunks in memory at a time: one is filled while the others wait."""


class Chunks(Protocol):
    """Memory for the next bytes of a file, and the hand-over to the function that takes them."""

    def room(self) -> memoryview:
        """Return memory to read into."""

    def give(self, data: memoryview) -> None:
        """Hand over the bytes that were read into the last room. They stay unchanged until the next `room`."""


def _memory(size: int) -> memoryview:
    """Return memory for a chunk. That of a large one begins with a page: writes past the page cache need that."""
    if size < _WORTH_A_MAP:
        return memoryview(bytearray(size))
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(
        OSError
    ):  # not every kernel has huge pages; with them a write looks up fewer pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)


class Here:
    """Chunks that the reading thread itself takes, at once."""

    def __init__(self, take: Callable[[memoryview], object], *, chunk: int) -> None:
        self._take = take
        self._room = _memory(chunk)

    def room(self) -> memoryview:
        """Return the memory to read into, the same each time."""
        return self._room

    def give(self, data: memoryview) -> None:
        """Hand over the bytes at once."""
        self._take(data)


class _Beside:
    """Chunks that another thread takes, in order."""

    def __init__(self, take: Callable[[memoryview], object], *, chunk: int) -> None:
        self._take = take
        self._full: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(_memory(chunk))
        self._filled = END
        self.failures: list[BaseException] = []

    def room(self) -> memoryview:
        """Wait for free memory, and return it.

        Raises:
            Exception: The other thread failed: the rest of the file need not be read.
        """
        self._filled = self._free.get()
        if self.failures:
            raise self.failures[0]
        return self._filled

    def give(self, data: memoryview) -> None:
        """Hand over the bytes that were read into the last room."""
        self._full.put((self._filled, data))

    def end(self) -> None:
        """Say that the file ends here."""
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
    """Let another thread take chunks, in order. At the end of the block all are taken.

    If `take` raises, the end of the block raises the error, and later chunks are dropped.
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
