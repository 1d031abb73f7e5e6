"""Using two cores for the bytes of one file: what is done with a chunk goes on beside reading the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Watch = Callable[[str], Callable[[bytes], None] | None]
"""Asked for each file by its path in the tree; what it returns is shown its bytes in order, and b"" at its end."""

_BEHIND = 8
"""Chunks that may wait: they bound the memory."""


@contextmanager
def beside(work: Callable[[bytes], object]) -> Iterator[Callable[[bytes], None]]:
    """Give a function that has another thread do `work` on each chunk, in order; all is done at the end.

    What `work` raises is raised at the end of the block; chunks after that are dropped.
    """
    queue: SimpleQueue[bytes] = SimpleQueue()
    room = threading.Semaphore(_BEHIND)
    failures: list[BaseException] = []

    def run() -> None:
        while chunk := queue.get():
            try:
                if not failures:
                    work(chunk)
            except BaseException as error:  # noqa: BLE001 - it is raised again where the block ends
                failures.append(error)
            room.release()

    def give(chunk: bytes) -> None:
        room.acquire()
        queue.put(chunk)

    thread = threading.Thread(target=run, name="beside")
    thread.start()
    try:
        yield give
    finally:
        queue.put(b"")
        thread.join()
    if failures:
        raise failures[0]
