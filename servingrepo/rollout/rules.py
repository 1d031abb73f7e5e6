"""How a change goes through several endpoints: what may be missing, and what they must answer. Values only."""

from __future__ import annotations

import msgspec

from servingrepo.smoke import SmokeCase


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one change.

    Attributes:
        allow_down: How many endpoints may not answer at all; they are listed, and follow later.
        probes: Requests that every endpoint must answer with the new version before anything is final.
    """

    allow_down: int = 0
    probes: tuple[SmokeCase, ...] = ()


STRICT = Rules()
"""Every endpoint answers; no requests of one's own."""
