"""The one serialization of a message that TensorFlow's fingerprints are made of.

C++ writes "deterministically": fields by number, map entries by ascending key, unknown fields last. Python's
protobuf (upb) does the same but for the order of maps: it writes integer keys in descending order, and a text
key after all longer ones that begin with it. So entries are put in order in the bytes; no length changes by that.
"""

from __future__ import annotations

import functools
from typing import Any

from servingrepo.savedmodel.wire import LENGTH_DELIMITED, VARINT, fields, read_varint

__all__ = ["canonical_bytes"]

_MEMO_SIZE = 2048
_MEMO_ENTRIES = 50_000


class _Plan:
    """The fields of one message type that have to be visited: maps, and those with maps below them."""

    def __init__(self) -> None:
        self.below: dict[int, tuple[_Plan | None, bool]] = {}
        self.memo: dict[bytes, bytes] = {}


def canonical_bytes(message: Any) -> bytearray:
    """Return what C++ writes for a message, in time and memory proportional to its size."""
    data = bytearray(message.SerializeToString(deterministic=True))
    _order(data, 0, len(data), _plan(message.DESCRIPTOR))
    return data


def _order(data: bytearray, start: int, end: int, plan: _Plan) -> None:
    """Put the maps of one message, and those below it, in order."""
    below = plan.below
    for number, tag, first, last in fields(data, start, end):
        found = below.get(number)
        if found is None or data[tag] & 7 != LENGTH_DELIMITED:
            continue  # of another wire type it is an unknown field, kept as it came
        inner, is_map = found
        if is_map:
            _order_rest(data, tag, end, plan)
            return
        if inner is not None:
            _order(data, first, last, inner)


def _order_rest(data: bytearray, start: int, end: int, plan: _Plan) -> None:
    """Put what follows from a message's first map on in order, or take what the same bytes gave before.

    Most nodes of a graph have the same attributes as another one.
    """
    before = bytes(data[start:end]) if end - start <= _MEMO_SIZE else b""
    known = plan.memo.get(before) if before else None
    if known is not None:
        if known != before:
            data[start:end] = known
        return
    _order_maps(data, start, end, plan)
    if before and len(plan.memo) < _MEMO_ENTRIES:
        plan.memo[before] = bytes(data[start:end])


def _order_maps(data: bytearray, start: int, end: int, plan: _Plan) -> None:
    maps: dict[int, list[tuple[bytes | int, int, int]]] = {}
    for number, tag, first, last in fields(data, start, end):
        found = plan.below.get(number)
        if found is None or data[tag] & 7 != LENGTH_DELIMITED:
            continue
        inner, is_map = found
        if inner is not None:
            _order(data, first, last, inner)
        if is_map:
            maps.setdefault(number, []).append((_key(data, first, last), tag, last))
    for entries in maps.values():
        ordered = sorted(entries)
        if ordered != entries:
            pieces = [data[tag:last] for _, tag, last in ordered]
            data[entries[0][1] : entries[-1][2]] = b"".join(pieces)


def _plan(descriptor: Any) -> _Plan:
    """Return the plan of a message type; types may hold each other."""
    plans: dict[str, _Plan] = {}
    interesting = _types_above_maps(descriptor)

    def make(one: Any) -> _Plan:
        if one.full_name in plans:
            return plans[one.full_name]
        plan = plans[one.full_name] = _Plan()
        for field in one.fields:
            inner = field.message_type
            if inner is None:
                continue
            is_map = inner.GetOptions().map_entry
            if inner.full_name in interesting:
                plan.below[field.number] = (make(inner), is_map)
            elif is_map:
                plan.below[field.number] = (None, True)
        return plan

    return make(descriptor)


@functools.cache
def _types_above_maps(descriptor: Any) -> frozenset[str]:
    """Return the types, this one and below, that hold maps or messages that do."""
    holds: dict[str, set[str]] = {}
    with_maps = set()
    pending = [descriptor]
    while pending:
        one = pending.pop()
        if one.full_name in holds:
            continue
        inner = [field.message_type for field in one.fields if field.message_type is not None]
        holds[one.full_name] = {each.full_name for each in inner}
        if any(each.GetOptions().map_entry for each in inner):
            with_maps.add(one.full_name)
        pending.extend(inner)
    while True:
        more = {name for name, below in holds.items() if below & with_maps} - with_maps
        if not more:
            return frozenset(with_maps)
        with_maps |= more


def _key(data: bytearray, start: int, end: int) -> bytes | int:
    """Return the key of a map entry, its first field."""
    for number, tag, first, last in fields(data, start, end):
        if number == 1:
            kind = data[tag] & 7
            if kind == LENGTH_DELIMITED:
                return bytes(data[first:last])
            if kind == VARINT:
                return read_varint(data, first)[0]
            return int.from_bytes(data[first:last], "little")
    return b""
