"""Parts of protobuf's messages that are cheaper to read and write by hand."""

from __future__ import annotations

from typing import Any

from servingrepo.protos import meta_graph_pb2
from servingrepo.savedmodel.wire import fields

__all__ = ["signatures_of", "varint"]

CONTINUED = 0x80
SIGNATURE_DEF = 5  # MetaGraphDef.signature_def, meta_graph.proto


def varint(number: int) -> bytes:
    """Return a non-negative number as a varint."""
    out = bytearray()
    while number >= CONTINUED:
        out.append(number & 0x7F | CONTINUED)
        number >>= 7
    out.append(number)
    return bytes(out)


def signatures_of(meta_graph: bytes) -> dict[str, Any]:
    """Read the signatures of a serialized MetaGraphDef without parsing its graph, which may be huge."""
    kept = b"".join(
        meta_graph[start:end]
        for number, start, _, end in fields(meta_graph, 0, len(meta_graph))
        if number == SIGNATURE_DEF
    )
    return dict(meta_graph_pb2.MetaGraphDef.FromString(kept).signature_def)
