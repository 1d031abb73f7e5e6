"""What a long call tells on its way: bytes that are done, and what is worth knowing before it ends."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]
"""Told, from any thread, how many more bytes are done."""


Notice = Callable[[str], None]
"""Told a line for people that should not wait for the result. It is in the result too."""


Told = Callable[[], None]
"""Told that something has happened, once."""


def silent(_bytes: int) -> None:
    """Progress that nobody looks at."""


def unheard(_line: str) -> None:
    """Notices that nobody listens to."""


def untold() -> None:
    """Something that nobody waits for."""
