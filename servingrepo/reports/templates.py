"""The templates of reports. They escape every value, and a value that is missing is an error."""

from __future__ import annotations

from typing import Any

__all__ = ["fill"]


def fill(name: str, **values: Any) -> str:
    """Return a template's text with values in it."""
    # Only a command that writes a report pays for this import.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("servingrepo.reports", "forms"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(**values)
