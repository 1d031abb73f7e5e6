"""TOML from strangers, read in bounded time and memory.

tomllib makes a tuple of every begin of a dotted key, and walks along the header of a table for each key below it: a
file of 40 kB takes 1.5 GB, and one of 1 MB 600 times as much. So how deep keys go is seen before they are parsed.
"""

from __future__ import annotations

import tomllib
from typing import Any

__all__ = ["LONGEST", "load_toml"]

LONGEST = 256 << 10
"""Bytes; a configuration is no more."""
_DEEPEST = 64


def load_toml(data: bytes) -> dict[str, Any]:
    """Read a TOML document.

    Raises:
        ValueError: It is broken, or is more than a configuration; the message says why.
    """
    if len(data) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} bytes")
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > _DEEPEST and _key_in(line).count(b".") > _DEEPEST:
            raise ValueError(f"line {number} has a key of more than {_DEEPEST} parts")
    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _key_in(line: bytes) -> bytes:
    """Return a part of a line that has its key, or its header, in it; more where quotes make that hard to tell."""
    if line.lstrip(b" \t").startswith(b"["):
        # What has commas and no quotes is a part of an array over several lines.
        return b"" if b"," in line and b'"' not in line and b"'" not in line else line
    before = line.partition(b"=")[0]
    return line if b'"' in before or b"'" in before else before
