"""What a graph asks of the server that loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servingrepo.savedmodel.effects import find_effects
from servingrepo.savedmodel.op_lists import known_versions, op_state
from servingrepo.savedmodel.values import Demands

if TYPE_CHECKING:
    from servingrepo.savedmodel.graph import GraphReader

__all__ = ["demands_of"]


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
