"""What a text that is no text format may be instead: said beside a mistake, never decided by."""

from __future__ import annotations

import re

__all__ = ["other_format"]

# A document's begin, or an item of a list: neither begins a line of text format.
_YAML = re.compile(r"^(?:---\s*$|\s*- +[A-Za-z_]+:)", re.MULTILINE)


def other_format(text: str) -> str:
    """Return the name of the format that a text seems to be in; nothing for one that is not known."""
    if text.lstrip()[:1] in {"{", "["}:
        return "JSON"
    return "YAML" if _YAML.search(text) else ""
