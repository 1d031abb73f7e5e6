"""Progress of long copies and hashes, told to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]
"""Told, from any thread, how many more bytes are done."""


def silent(_bytes: int) -> None:
    """Progress that nobody looks at."""
