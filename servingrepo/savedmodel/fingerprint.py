"""fingerprint.pb: what TensorFlow noted about an export, and whether it still holds.

TensorFlow and TensorFlow Serving only report fingerprints; neither verifies them. Here all five hashes are
computed again, as in tensorflow/cc/saved_model/fingerprinting.cc and core/graph/regularization/, for the first
MetaGraph, and compared one by one.

What they cover: `saved_model_checksum` every byte of saved_model.pb, the other three parts of the graph, and
`checkpoint_hash` the index of the variables. None covers the variables' bytes nor the assets. TensorFlow 2.11 had
`graph_def_checksum` in the place of the first, which covers the GraphDef alone (seen in files that it wrote).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import farmhash
from google.protobuf.message import DecodeError

from servingrepo.protos import fingerprint_pb2, graph_pb2, types_pb2
from servingrepo.savedmodel.canonical import canonical_bytes
from servingrepo.savedmodel.values import (
    Defect,
    FieldVerdict,
    Fingerprint,
    FingerprintField,
    damaged,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GRAPH_ONLY", "HASHES", "KNOWN_PRODUCERS", "fingerprint_defects", "read_fingerprint"]

HASHES = (
    "saved_model_checksum",
    "graph_def_program_hash",
    "signature_def_hash",
    "saved_object_graph_hash",
    "checkpoint_hash",
)

KNOWN_PRODUCERS = frozenset({0, 1, 4})
"""Versions of the code whose hashes are known: TensorFlow 2.11, 2.12 to 2.20, and 2.21.

Another one may hash in another way, so that a difference does not mean damage.
"""

GRAPH_ONLY = 0
"""The producer whose `saved_model_checksum` is that of the GraphDef alone."""

_K = 0xC6A4A7935BD1E995
_WORD = (1 << 64) - 1
_INT64 = range(-(1 << 63), 1 << 63)
_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", re.ASCII)
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_FIRST_PRODUCER_WITH_KEYS = 2


def read_fingerprint(
    data: bytes, *, saved_model: bytes, message: Any, index: bytes | None
) -> Fingerprint:
    """Read the bytes of fingerprint.pb and check every hash in it.

    Args:
        data: The file's bytes.
        saved_model: The bytes of `saved_model.pb`; empty for one in text form.
        message: The SavedModel message that they hold.
        index: The bytes of `variables/variables.index`; None when there is no such file.

    Raises:
        ValueError: It is no FingerprintDef.
    """
    found = fingerprint_pb2.FingerprintDef()
    try:
        found.ParseFromString(data)
    except DecodeError as error:
        raise ValueError("fingerprint.pb is no FingerprintDef") from error
    producer: int = found.version.producer
    first = message.meta_graphs[0]
    computing: dict[str, Callable[[int], int | None]] = {
        "saved_model_checksum": lambda stored: _saved_model_checksum(
            saved_model, message, stored, producer
        ),
        "graph_def_program_hash": lambda _: _graph_hash(first.graph_def),
        "signature_def_hash": lambda stored: _signatures_hash(first, stored, producer),
        "saved_object_graph_hash": lambda stored: _objects_hash(first.object_graph_def, stored),
        # fingerprinting_utils.cc: the hash of a checkpoint that is not there is 0.
        "checkpoint_hash": lambda _: farmhash.fingerprint64(index) if index is not None else 0,
    }
    return Fingerprint(
        producer=producer,
        uuid=found.uuid,
        fields=tuple(
            _field(name, getattr(found, name), computing[name], producer) for name in HASHES
        ),
    )


def fingerprint_defects(
    fingerprint: Fingerprint | None, *, variables_missing: bool = False
) -> tuple[Defect, ...]:
    """Return a defect for each hash that the files do not give, but none for that of variables that are missing."""
    return tuple(
        damaged(
            "fingerprint",
            f"{field.name} is {field.stored} in fingerprint.pb, but {_covered(field)}",
            hint="the export was changed after it was saved, or is put together from several: export the "
            "model again, or copy it again from where it is whole",
        )
        for field in (fingerprint.fields if fingerprint is not None else ())
        if field.verdict == "differs"
        and not (variables_missing and field.name == "checkpoint_hash")
    )


def _covered(field: FingerprintField) -> str:
    if field.name != "checkpoint_hash":
        return f"saved_model.pb gives {field.computed}"
    what = f"gives {field.computed}" if field.computed else "is missing"
    return f"variables/variables.index {what}"


def _field(
    name: str, stored: int, compute: Callable[[int], int | None], producer: int
) -> FingerprintField:
    computed = compute(stored)
    verdict: FieldVerdict
    if stored == computed:
        verdict = "matches"
    elif not stored:
        # proto3 does not store a 0, so a 0 beside a model means that nothing was noted.
        verdict = "absent"
    elif computed is None or producer not in KNOWN_PRODUCERS:
        verdict = "cannot verify"
    else:
        verdict = "differs"
    return FingerprintField(name=name, stored=stored, computed=computed, verdict=verdict)


def _saved_model_checksum(data: bytes, message: Any, stored: int, producer: int) -> int:
    """Hash saved_model.pb as it lies there, or as C++ would write it again: old writers noted the first.

    Files from Google's own build have their fields in another order, so that only the first fits them; those
    of Python's newer protobuf have maps in another order, so that only the second does.
    """
    raw: int = farmhash.fingerprint64(data) if data else 0
    if data and raw == stored:
        return raw
    if producer == GRAPH_ONLY:
        graph = _hash(message.meta_graphs[0].graph_def)
        if graph == stored:
            return graph
    return _hash(message)


def _graph_hash(graph: Any) -> int:
    """Hash the main graph without what differs from save to save (simple_delete.cc)."""
    regular = graph_pb2.GraphDef()
    regular.CopyFrom(graph)
    for node in regular.node:
        attributes = node.attr
        if node.op in _CALLS:
            if "f" in attributes:
                name = attributes["f"].func.name
                attributes["f"].func.name = _without_uid(name, _uid(name))
            if "config_proto" in attributes:
                attributes["config_proto"].s = b""
        elif (
            node.op == "Const"
            and "value" in attributes
            and "dtype" in attributes
            and attributes["dtype"].type == types_pb2.DT_STRING
        ):
            kind = attributes["value"].WhichOneof("value")
            if kind is not None:
                attributes["value"].ClearField(kind)
    # Clear() leaves both there, empty.
    regular.library.Clear()
    regular.library.SetInParent()
    regular.versions.Clear()
    regular.versions.SetInParent()
    return _hash(regular)


def _signatures_hash(meta_graph: Any, stored: int, producer: int) -> int:
    """Hash keys and signatures; a first form, of producer 0 and some of 1, left out the keys."""
    definitions = meta_graph.signature_def
    keys = sorted(definitions, key=str.encode)
    hashes = {key: _hash(definitions[key]) for key in keys}
    found = without_keys = 0
    for key in keys:
        found = _combine(_combine(found, farmhash.fingerprint64(key.encode())), hashes[key])
        without_keys = _combine(without_keys, hashes[key])
    if stored == without_keys and producer < _FIRST_PRODUCER_WITH_KEYS:
        return without_keys
    return found


def _objects_hash(objects: Any, stored: int) -> int | None:
    """Hash the concrete functions; None where TensorFlow's own way has no certain result.

    A name without a number is an error there. Of two names with one number the first in the order of a hash
    map counts, which nobody knows.
    """
    functions = objects.concrete_functions
    names: dict[int, str] = {}
    doubled = False
    for name in sorted(functions):
        number = _uid(name)
        if number is None:
            return None
        doubled |= number in names
        names.setdefault(number, name)
    found = 0
    for number, name in sorted(names.items()):
        found = _combine(found, farmhash.fingerprint64(_without_uid(name, number).encode()))
        found = _combine(found, _hash(functions[name]))
    return None if doubled and found != stored else found


def _hash(message: Any) -> int:
    found: int = farmhash.fingerprint64(bytes(canonical_bytes(message)))
    return found


def _uid(name: str) -> int | None:
    """Return the number after the last underscore of a function's name (absl::SimpleAtoi of an int64)."""
    found = _INTEGER.fullmatch(name.rpartition("_")[2])
    if found is None or len(found[1]) > 40:  # noqa: PLR2004 - Python refuses to read thousands of digits
        return None
    return int(found[1]) if int(found[1]) in _INT64 else None


def _without_uid(name: str, uid: int | None) -> str:
    return name if uid is None else name.removesuffix(str(uid))


def _combine(first: int, second: int) -> int:
    """Return FingerprintCat64 (tsl/platform/fingerprint.h)."""
    result = first ^ _K
    result ^= _mix(second * _K & _WORD) * _K & _WORD
    result = result * _K & _WORD
    return _mix(_mix(result) * _K & _WORD)


def _mix(value: int) -> int:
    return value ^ (value >> 47)
