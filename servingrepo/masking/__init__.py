"""Secrets taken out of what is recorded: by names, by looks, and by where they stand in a text.

It is the last net, not the first: what needs no recording is not recorded at all. Records, history and lock files are
readable by all users of a machine, so every text goes through here on its way to them.
"""

from __future__ import annotations

from servingrepo.masking.commands import mask_command
from servingrepo.masking.names import hides
from servingrepo.masking.shapes import MASK
from servingrepo.masking.texts import mask_text
from servingrepo.masking.values import free_name, masked

__all__ = [
    "MASK",
    "free_name",
    "hides",
    "mask",
    "mask_command",
    "mask_start",
    "mask_text",
    "masked",
]

_LOOKED_AT = 1024


def mask(name: str, value: str) -> str:
    """Return a value for the record: masked whole if its name is a secret's, else what in it is one."""
    return MASK if hides(name, value) else mask_text(value)


def mask_start(name: str, value: str, *, longest: int) -> str:
    """Return the start of a value for the record, which may be far longer than what is kept of it.

    Only a part is looked at. Where much of that was masked, its end comes into sight, and a secret could lie across
    it: the last word is left out then.
    """
    start = mask(name, value[:_LOOKED_AT])
    if len(value) > _LOOKED_AT and len(start) <= longest:
        words = start.rsplit(None, 1)
        return words[0] if len(words) > 1 else MASK
    return start[:longest]
