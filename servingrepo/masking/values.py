"""Secrets taken out of whole values on their way to a file: the last net under everything that is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from servingrepo.masking.texts import mask_text

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["free_name", "masked"]

T = TypeVar("T", bound=msgspec.Struct)


def masked(value: T, *, exact: Collection[str]) -> T:
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
    """Return a name for one more entry: two that were masked alike must not become one."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
