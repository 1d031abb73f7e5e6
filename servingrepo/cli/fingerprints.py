"""How commands show what fingerprint.pb says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.savedmodel import Fingerprint


def fingerprint_lines(fingerprint: Fingerprint | None) -> Iterator[str]:
    """Yield who wrote it and a verdict for each of the five hashes."""
    if fingerprint is None:
        yield "fingerprint.pb  absent: the graph has no checksum of its own"
        return
    yield f"fingerprint.pb  producer {fingerprint.producer}, uuid {fingerprint.uuid or 'none'}"
    for field in fingerprint.fields:
        yield f"  {field.name:<24} {field.stored:<20} {field.verdict}"
