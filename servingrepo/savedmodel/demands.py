"""Demands of a graph on the server that loads it: operations, effects, and devices.

An op that is pinned to a GPU, or without a kernel on CPUs, cannot be placed by a TensorFlow Serving on CPUs. The main
graph is placed as a whole when it is loaded, so any of its nodes counts. A function counts if the main graph can
reach it. TensorFlow 2 marks its function calls with `allow_soft_placement`; ops pinned to a GPU in such a function
run on the CPU (tried with TensorFlow 2.21), so they are worth a note and no more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from servingrepo.savedmodel.effects import find_effects
from servingrepo.savedmodel.server_fit import known_versions, op_state
from servingrepo.savedmodel.state import changes_of
from servingrepo.savedmodel.values import Demands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.savedmodel.graph import GraphReader


__all__ = ["demands_of", "find_unplaceable"]

_PINNED = re.compile(r"/(?:device:)?(?:XLA_)?(?:GPU|TPU|TPU_SYSTEM):", re.IGNORECASE)
_SOFT_PLACEMENT_FIELD = 7  # ConfigProto.allow_soft_placement


def demands_of(meta_graph: Any, reader: GraphReader) -> Demands:
    """Return what a MetaGraph asks for. Only functions that the main graph can reach count."""
    main = {node.op for node in reader.graph.node} - reader.functions.keys()
    inner = _function_ops(reader) - main - reader.functions.keys()
    versions = meta_graph.graph_def.versions
    versions_known = known_versions()
    custom = sorted(
        op
        for op in main | inner
        if all(op_state(op, version) == "absent" for version in versions_known)
    )
    return Demands(
        producer=versions.producer,
        min_consumer=versions.min_consumer,
        ops=tuple(sorted(main)),
        function_ops=tuple(sorted(inner)),
        custom=tuple(custom),
        effects=find_effects(meta_graph, reader),
        state=changes_of(meta_graph, reader),
    )


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


def find_unplaceable(reader: GraphReader) -> dict[str, list[str]]:
    """Return the nodes of the main graph, and of the functions it can reach, that a CPU cannot run.

    They are names of nodes, with their function if any, by a slug for the reason. Those that are `movable` ask for a
    GPU, and TensorFlow runs them on a CPU all the same.
    """
    found: dict[str, list[str]] = {}
    for where, node, soft in _reachable(reader):
        name = f"{where}{node.name}"
        if _PINNED.search(node.device):
            slug = "movable" if soft else "gpu-pinned"
            found.setdefault(slug, []).append(f"{name} ({node.device})")
        if (kind := _kind(node.op)) is not None:
            found.setdefault(kind, []).append(f"{name} ({node.op})")
    return found


def _kind(op: str) -> str | None:
    if op in {"TRTEngineOp", "GetCalibrationDataOp", "CreateTRTResourceHandle"}:
        return "tensorrt"
    if op.startswith(("_Mkl", "Mkl")):
        return "mkl"
    if op in {"PyFunc", "PyFuncStateless", "EagerPyFunc"}:
        return "python-op"
    # Registered in today's TensorFlow, but without any kernel (tried with TensorFlow 2.21).
    if op.startswith(("BoostedTrees", "TensorForest")):
        return "removed-op"
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
