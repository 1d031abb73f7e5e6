"""The first line of a config that servingrepo wrote: it carries a digest of all the rest.

So an edit by hand is seen in the file itself, with no record elsewhere that could be lost or be behind.
"""

from __future__ import annotations

import enum
import re

__all__ = ["Stamp", "read_stamp", "stamp"]

_OPENING = "# Written by servingrepo"
_LINE = (
    _OPENING
    + "; do not edit: change it with servingrepo serve, unserve or rollback. sha256:{digest}\n"
)
_FIRST_LINE = re.compile(r"# Written by servingrepo[^\n]* sha256:(?P<digest>[0-9a-f]{64})\n")
_ANY_LINE = re.compile(rf"^{re.escape(_OPENING)}\b", re.MULTILINE)


class Stamp(enum.StrEnum):
    """The writer of a config, as its first line says."""

    UNEDITED = "ours, unedited"
    EDITED = "ours, edited by hand"
    FOREIGN = "not ours"


def stamp(body: str) -> str:
    """Put the header with the body's SHA-256 (of its UTF-8 bytes) before the body."""
    return _LINE.format(digest=_digest(body)) + body


def read_stamp(text: str) -> Stamp:
    """Tell whether servingrepo wrote this text and whether somebody changed it since.

    A header anywhere but in the first line, or with a digest that does not fit, means edited. A text whose
    header was taken away altogether is `not ours`: nothing in it says otherwise.
    """
    first = _FIRST_LINE.match(text)
    if first is not None and first["digest"] == _digest(text[first.end() :]):
        return Stamp.UNEDITED
    return Stamp.EDITED if _ANY_LINE.search(text) else Stamp.FOREIGN


def _digest(body: str) -> str:
    import hashlib  # OpenSSL takes its time to load, and `list` and `show` need no stamp

    # surrogateescape-d bytes of a hand-made file must give "edited", not an encoding error.
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()
