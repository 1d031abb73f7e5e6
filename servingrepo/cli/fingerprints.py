"""Lines about fingerprint.pb and the checksums of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.savedmodel.values import Fingerprint, TensorCheck


def fingerprint_lines(fingerprint: Fingerprint | None) -> Iterator[str]:
    """Yield the writer of fingerprint.pb, and a verdict for each of its five hashes."""
    if fingerprint is None:
        yield "fingerprint.pb  absent: the graph has no checksum of its own"
        return
    yield f"fingerprint.pb  producer {fingerprint.producer}, uuid {fingerprint.uuid or 'none'}"
    for field in fingerprint.fields:
        yield f"  {field.name:<24} {field.stored:<20} {field.verdict}"


def tensor_lines(tensors: TensorCheck | None, *, vouched: bool = False) -> Iterator[str]:
    """Yield the number of checked tensors, and each damaged tensor; `vouched`: the record says it of these bytes."""
    if tensors is None:
        return
    damaged = f", {tensors.damaged_count} damaged" if tensors.damaged_count else ""
    by_record = " for the record, which vouches for these bytes (again: --deep)" if vouched else ""
    yield f"tensors         {tensors.checked} of {tensors.tensors} checked{damaged}{by_record}"
    yield from (f"  damaged       {one}" for one in tensors.damaged)
