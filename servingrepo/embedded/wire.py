"""Parts of protobuf's wire format that are cheaper to read and write by hand."""

from __future__ import annotations

from typing import Any

from servingrepo.protos import meta_graph_pb2

__all__ = ["LENGTH_DELIMITED", "fields", "signatures_of", "varint"]

LENGTH_DELIMITED = 2
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


def fields(message: bytes) -> list[tuple[int, int, int, int]]:
    """Return (field number, start of the field, start of its content, end) of a valid message's fields."""
    found = []
    position = 0
    while position < len(message):
        start = position
        tag, position = _read_varint(message, position)
        content = position
        match tag & 7:
            case 0:
                _, position = _read_varint(message, position)
            case 1:
                position += 8
            case 2:
                length, content = _read_varint(message, position)
                position = content + length
            case 5:
                position += 4
            case other:
                raise ValueError(f"wire type {other} at byte {start}")
        found.append((tag >> 3, start, content, position))
    return found


def signatures_of(meta_graph: bytes) -> dict[str, Any]:
    """Read the signatures of a serialized MetaGraphDef without parsing its graph, which may be huge."""
    kept = b"".join(
        meta_graph[start:end]
        for number, start, _, end in fields(meta_graph)
        if number == SIGNATURE_DEF
    )
    return dict(meta_graph_pb2.MetaGraphDef.FromString(kept).signature_def)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < CONTINUED:
            return number, position
        shift += 7
