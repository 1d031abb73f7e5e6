"""How commands show what fingerprint.pb and the checksums of tensors say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.savedmodel import Fingerprint, TensorCheck


def fingerprint_lines(fingerprint: Fingerprint | None) -> Iterator[str]:
    """Yield who wrote it and a verdict for each of the five hashes."""
    if fingerprint is None:
        yield "fingerprint.pb  absent: the graph has no checksum of its own"
        return
    yield f"fingerprint.pb  producer {fingerprint.producer}, uuid {fingerprint.uuid or 'none'}"
    for field in fingerprint.fields:
        yield f"  {field.name:<24} {field.stored:<20} {field.verdict}"


def tensor_lines(tensors: TensorCheck | None) -> Iterator[str]:
    """Yield how many tensors were checked, and each damaged one."""
    if tensors is None:
        return
    damaged = f", {tensors.damaged_count} damaged" if tensors.damaged_count else ""
    yield f"tensors         {tensors.checked} of {tensors.tensors} checked{damaged}"
    yield from (f"  damaged       {one}" for one in tensors.damaged)
