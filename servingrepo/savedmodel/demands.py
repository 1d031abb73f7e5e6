"""Demands of a graph on the server that loads it: operations, effects, and devices.

An op that is pinned to a GPU, or without a kernel on CPUs, cannot be placed by a TensorFlow Serving on CPUs. The main
graph is placed as a whole when it is loaded, so any of its nodes counts. A function counts if the main graph can
reach it. TensorFlow 2 marks its function calls with `allow_soft_placement`; ops pinned to a GPU in such a function
run on the CPU (tried with TensorFlow 2.21), so they are worth a note and no more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from servingrepo.savedmodel.effects import find_effects
from servingrepo.savedmodel.server_fit import known_versions, op_state
from servingrepo.savedmodel.values import Demands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.savedmodel.graph import GraphReader


__all__ = ["Placement", "demands_of", "find_unplaceable"]

_PINNED = re.compile(r"/(?:device:)?(?:XLA_)?(?:GPU|TPU|TPU_SYSTEM):", re.IGNORECASE)
_SOFT_PLACEMENT_FIELD = 7  # ConfigProto.allow_soft_placement


def demands_of(meta_graph: Any, reader: GraphReader) -> Demands:
    """Return what a MetaGraph asks for. Only functions that the main graph can reach count."""
    main = {node.op for node in reader.graph.node} - reader.functions.keys()
    inner = _function_ops(reader) - main - reader.functions.keys()
    versions = meta_graph.graph_def.versions
    custom = sorted(op for op in main | inner if _is_custom(op))
    return Demands(
        producer=versions.producer,
        min_consumer=versions.min_consumer,
        ops=tuple(sorted(main)),
        function_ops=tuple(sorted(inner)),
        custom=tuple(custom),
        effects=find_effects(meta_graph, reader),
    )


def _is_custom(op: str) -> bool:
    return all(op_state(op, version) == "absent" for version in known_versions())


def _function_ops(reader: GraphReader) -> set[str]:
    """Return the operations of the functions that the main graph can reach."""
    found: set[str] = set()
    seen: set[str] = set()
    pending = [""]
    while pending:
        for _, names in reader.calls(pending.pop()):
            new = set(names) - seen
            seen |= new
            pending += new
    for name in seen:
        found.update(node.op for node in reader.body(name))
    return found


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Names of nodes (with their function, if any) by what is wrong with them."""

    pinned: tuple[str, ...]
    movable: tuple[str, ...]
    tensorrt: tuple[str, ...]
    mkl: tuple[str, ...]
    python: tuple[str, ...]
    removed: tuple[str, ...]


def find_unplaceable(reader: GraphReader) -> Placement:
    """Return the nodes of the main graph, and of the functions it can reach, that a CPU cannot run."""
    pinned: list[str] = []
    movable: list[str] = []
    by_op: dict[str, list[str]] = {"tensorrt": [], "mkl": [], "python": [], "removed": []}
    for where, node, soft in _reachable(reader):
        name = f"{where}{node.name}"
        if _PINNED.search(node.device):
            (movable if soft else pinned).append(f"{name} ({node.device})")
        kind = _kind(node.op)
        if kind is not None:
            by_op[kind].append(f"{name} ({node.op})")
    return Placement(
        pinned=tuple(pinned),
        movable=tuple(movable),
        tensorrt=tuple(by_op["tensorrt"]),
        mkl=tuple(by_op["mkl"]),
        python=tuple(by_op["python"]),
        removed=tuple(by_op["removed"]),
    )


def _kind(op: str) -> str | None:
    if op in {"TRTEngineOp", "GetCalibrationDataOp", "CreateTRTResourceHandle"}:
        return "tensorrt"
    if op.startswith(("_Mkl", "Mkl")):
        return "mkl"
    if op in {"PyFunc", "PyFuncStateless", "EagerPyFunc"}:
        return "python"
    # Registered in today's TensorFlow, but without any kernel (tried with TensorFlow 2.21).
    if op.startswith(("BoostedTrees", "TensorForest")):
        return "removed"
    return None


def _reachable(reader: GraphReader) -> Iterator[tuple[str, Any, bool]]:
    """Yield (prefix, node, soft placement) for the main graph and for every function once or twice."""
    for node in reader.body():
        yield "", node, False
    pending = [(name, _soft(node)) for node, names in reader.calls() for name in names]
    seen: set[tuple[str, bool]] = set()
    while pending:
        name, soft = pending.pop()
        if (name, soft) in seen or (name, False) in seen:
            continue
        seen.add((name, soft))
        for node in reader.body(name):
            yield f"{name}/", node, soft
        # The outermost call decides: TensorFlow inlines the calls inside before it places ops.
        pending.extend((inner, soft) for _, names in reader.calls(name) for inner in names)


def _soft(node: Any) -> bool:
    """Return whether a function call lets TensorFlow move ops to another device."""
    if "config_proto" not in node.attr:
        return False
    try:
        fields: Any = UnknownFieldSet(Empty.FromString(node.attr["config_proto"].s))
    except DecodeError:
        return False
    return any(one.field_number == _SOFT_PLACEMENT_FIELD and one.data for one in fields)
