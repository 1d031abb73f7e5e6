"""Secrets taken out of what is recorded: by names, by shapes, and by their places in a text.

It is the last net, not the first: what needs no recording is not recorded at all. Records, history and lock files are
readable by all users of a machine, so every text goes through here on its way to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from servingrepo.masking.commands import mask_command
from servingrepo.masking.names import hides
from servingrepo.masking.shapes import MASK
from servingrepo.masking.texts import mask_text
from servingrepo.texts import as_text

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "MASK",
    "as_message",
    "free_name",
    "hides",
    "mask",
    "mask_command",
    "mask_start",
    "mask_text",
    "masked",
]


_LOOKED_AT = 1024


def as_message(text: str) -> str:
    """Return why a change is made, without secrets: it goes into records, and is shown as it stands there.

    Raises:
        UsageError: It is no text that can be recorded.
    """
    return mask_text(as_text(text, "message"))


def mask(name: str, value: str) -> str:
    """Return a value for the record: masked as a whole if its name is that of a secret, else without its secrets."""
    return MASK if hides(name, value) else mask_text(value)


def mask_start(name: str, value: str, *, longest: int) -> str:
    """Return the start of a value for the record, which may be far longer than what is kept of it.

    Only a part is read. If so much of it was masked that its end would be kept, its last word is left out: a secret
    could begin there.
    """
    start = mask(name, value[:_LOOKED_AT])
    if len(value) > _LOOKED_AT and len(start) <= longest:
        words = start.rsplit(None, 1)
        return words[0] if len(words) > 1 else MASK
    return start[:longest]


_T = TypeVar("_T", bound=msgspec.Struct)


def masked(value: _T, *, exact: Collection[str]) -> _T:
    """Return a struct with no secrets in its texts, however deep they lie; itself if it has none.

    Args:
        value: The struct.
        exact: Fields that are left as they are, as `Class.field`: what code compares, and what can be no secret.
    """
    changes: dict[str, Any] = {}
    kind = type(value).__name__
    for name in value.__struct_fields__:
        if f"{kind}.{name}" in exact:
            continue
        old = getattr(value, name)
        new = _masked(old, exact)
        if new is not old:
            changes[name] = new
    return msgspec.structs.replace(value, **changes) if changes else value


def _masked(value: Any, exact: Collection[str]) -> Any:
    """Return a value without secrets; the very same one if it has none."""
    if isinstance(value, str):
        new = mask_text(value)
        return new if new != value else value
    if isinstance(value, msgspec.Struct):
        return masked(value, exact=exact)
    if isinstance(value, tuple | list):
        items = [_masked(one, exact) for one in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else type(value)(items)
    if isinstance(value, dict):
        table: dict[Any, Any] = {}
        for key, one in value.items():
            table[free_name(_masked(key, exact), table)] = _masked(one, exact)
        return table if table != value else value
    return value


def free_name(name: Any, taken: Collection[Any]) -> Any:
    """Return a free name for one more entry: two names that are alike once masked must stay two."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
