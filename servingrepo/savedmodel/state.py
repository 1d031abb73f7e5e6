"""State: operations by which a request changes what later requests find, such as a counter in a variable.

The restore op and the initialisation change variables too. No request runs these, so only what the outputs of
signatures need counts, with every function that is called on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servingrepo.savedmodel.signatures import INIT_OP_KEY

if TYPE_CHECKING:
    from servingrepo.savedmodel.graph import GraphReader

__all__ = ["changes_of"]

_CHANGED_BY = """
Assign AssignAdd AssignSub AssignVariableOp AssignAddVariableOp AssignSubVariableOp CountUpTo ResourceCountUpTo
ScatterUpdate ScatterAdd ScatterSub ScatterMul ScatterDiv ScatterMin ScatterMax
ScatterNdUpdate ScatterNdAdd ScatterNdSub ScatterNdMin ScatterNdMax
QueueEnqueue QueueEnqueueV2 QueueEnqueueMany QueueEnqueueManyV2 QueueDequeue QueueDequeueV2 StackPush StackPushV2
Stage Unstage MapStage OrderedMapStage RngReadAndSkip RngSkip
"""
_CHANGES = frozenset(_CHANGED_BY.split())
_PREFIXES = (
    "ResourceScatter",
    "ResourceApply",
    "ResourceSparseApply",
    "LookupTableInsert",
    "LookupTableRemove",
    "LookupTableImport",
)


def changes_of(meta_graph: Any, reader: GraphReader) -> tuple[str, ...]:
    """Return the operations of a MetaGraph by which a request to a signature changes state, sorted."""
    definitions = meta_graph.signature_def
    fetched = [
        info.name
        for key in definitions
        if key != INIT_OP_KEY
        for info in definitions[key].outputs.values()
    ]
    asked = reader.behind(fetched)
    ops = {reader.main.nodes[name].op for name in asked}
    called = [one for node, names in reader.calls() if node.name in asked for one in names]
    entered: set[str] = set()
    while called:
        name = called.pop()
        if name in reader.functions and name not in entered:
            entered.add(name)
            ops |= {node.op for node in reader.body(name)}
            called += [one for _, names in reader.calls(name) for one in names]
    return tuple(sorted(op for op in ops if op in _CHANGES or op.startswith(_PREFIXES)))
