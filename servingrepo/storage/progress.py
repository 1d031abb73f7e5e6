"""Types of the functions that report progress. All rooms from storage to cli use them, so they have a file here."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]
"""Gets the number of further bytes that are done. It may be called from any thread."""

Notice = Callable[[str], None]
"""Gets a line for people that they should read before the result is there. The result has it too."""

Signal = Callable[[], None]
"""Called once, when an event has happened."""


def silent(_bytes: int) -> None:
    """Ignore progress."""


def unheard(_line: str) -> None:
    """Ignore a notice."""


def no_signal() -> None:
    """Ignore an event."""
