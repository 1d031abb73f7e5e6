"""A finding of a check, apart because checks.py, which imports disk.py, and disk.py both make findings."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Finding", "error", "warning"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A mistake, or something that will surprise.

    An `error` makes the server refuse the config, abort, hang, or not serve what the config says. A
    `warning` is served as written but asks for trouble. `slug` names the rule and stays as it is. `model` is the
    name as written, empty for the config as a whole; `field` is the field's name in the config. `message` is `what`
    with its `consequence`, which may be empty. `child` is the version's directory that it is about, if there is one.
    """

    severity: Literal["error", "warning"]
    slug: str
    model: str
    field: str
    message: str
    what: str
    consequence: str = ""
    hint: str = ""
    child: str = ""

    def __str__(self) -> str:
        """Give the finding as one line, without the hint."""
        model = f"model {self.model}: " if self.model else ""
        return f"{self.severity}: {model}{self.field}: {self.message}"


def error(slug: str, model: str, field: str, what: str, hint: str = "", *, so: str = "") -> Finding:
    """Make a finding of severity error; `so` is its consequence."""
    return Finding(
        severity="error",
        slug=slug,
        model=model,
        field=field,
        message=f"{what}: {so}" if so else what,
        what=what,
        consequence=so,
        hint=hint,
    )


def warning(
    slug: str, model: str, field: str, what: str, hint: str = "", *, so: str = ""
) -> Finding:
    """Make a finding of severity warning; `so` is its consequence."""
    return msgspec.structs.replace(error(slug, model, field, what, hint, so=so), severity="warning")
