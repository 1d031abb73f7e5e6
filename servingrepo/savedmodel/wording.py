"""How to list many things in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["plural", "some"]


def plural(count: int, one: str, many: str) -> str:
    """Return "1 file is" or "2 files are"."""
    return f"{count} {one if count == 1 else many}"


def some(names: Sequence[str], *, most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
