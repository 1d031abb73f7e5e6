"""Functions that a long call calls on its way; apart because every room from storage to cli names their types."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]
"""Called from any thread with how many more bytes are done."""

Notice = Callable[[str], None]
"""Called with a line for people that should not wait for the result. It is in the result too."""

Told = Callable[[], None]
"""Called once, when something has happened."""


def silent(_bytes: int) -> None:
    """Do nothing with progress."""


def unheard(_line: str) -> None:
    """Do nothing with a notice."""


def untold() -> None:
    """Do nothing with an event."""
