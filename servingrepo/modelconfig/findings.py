"""A finding of a check, apart because checks.py, which imports disk.py, and disk.py both make findings."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Finding", "error", "warning"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A mistake, or something that will surprise.

    An `error` makes the server refuse the config, abort, hang, or not serve what the config says. A
    `warning` is served as written but asks for trouble. `model` is the name as written, empty for the config
    as a whole; `field` is the field's name in the config.
    """

    severity: Literal["error", "warning"]
    model: str
    field: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Give the finding as one line, without the hint."""
        model = f"model {self.model}: " if self.model else ""
        return f"{self.severity}: {model}{self.field}: {self.message}"


def error(model: str, field: str, message: str, hint: str = "") -> Finding:
    """Make a finding of severity error."""
    return Finding(severity="error", model=model, field=field, message=message, hint=hint)


def warning(model: str, field: str, message: str, hint: str = "") -> Finding:
    """Make a finding of severity warning."""
    return Finding(severity="warning", model=model, field=field, message=message, hint=hint)
