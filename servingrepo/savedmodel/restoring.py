"""Restoring by a server that loads an export: the names of its variables, and the files of its assets.

From tensorflow/cc/saved_model/loader.cc: variables are restored by the op that `saver_def` names, and only if
`variables/variables.index` exists. A model that lost its variables therefore loads, says AVAILABLE and fails
every request, so the need for variables must be read from the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.message import DecodeError

from servingrepo.protos import meta_graph_pb2
from servingrepo.savedmodel.signatures import texts_of

if TYPE_CHECKING:
    from servingrepo.savedmodel.graph import GraphReader

__all__ = ["Assets", "Needs", "asset_definitions", "named_assets", "needs_variables"]

_VARIABLE_OPS = frozenset({"Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable"})
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_ASSETS = "saved_model_assets"


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an export needs `variables/`, and the names that it will look up there, as far as known."""

    needed: bool
    names: frozenset[str]


class Assets(msgspec.Struct, frozen=True, kw_only=True):
    """Files of `assets/` that the graph names: those that an operation takes, and those that none does.

    An export without an unread one loads and answers; old exporters left such names behind.
    """

    read: tuple[str, ...]
    unread: tuple[str, ...]


def needs_variables(meta_graph: Any, reader: GraphReader) -> Needs:
    """Return what the restore op of a MetaGraph will read.

    A graph without a restore op needs nothing: its variables, if any, are initialised in another way. A
    TensorFlow 2 export without variables has a restore op that reads the object graph alone, which nothing
    depends on.
    """
    restore = meta_graph.saver_def.restore_op_name
    if not restore:
        return Needs(needed=False, names=frozenset())
    names, complete = _restored_names(reader, restore)
    names -= {_OBJECT_GRAPH}
    if names or complete:
        return Needs(needed=bool(names), names=frozenset(names))
    variables = any(node.op in _VARIABLE_OPS for node in meta_graph.graph_def.node)
    return Needs(needed=variables, names=frozenset())


def named_assets(meta_graph: Any, reader: GraphReader) -> Assets:
    """Return the files in `assets/` that the graph names: in `asset_file_def`, or in TF 1's collection."""
    definitions = asset_definitions(meta_graph)
    names = {one.filename for one in definitions}
    read = {
        one.filename
        for one in definitions
        if one.tensor_info.name.split(":")[0] in reader.main.consumers
    }
    return Assets(read=tuple(sorted(read)), unread=tuple(sorted(names - read)))


def asset_definitions(meta_graph: Any) -> list[Any]:
    """Return the AssetFileDefs of a MetaGraph, whichever TensorFlow wrote it."""
    definitions = list(meta_graph.asset_file_def)
    if not definitions and _ASSETS in meta_graph.collection_def:
        for packed in meta_graph.collection_def[_ASSETS].any_list.value:
            try:
                definitions.append(meta_graph_pb2.AssetFileDef.FromString(packed.value))
            except DecodeError:
                continue
    return definitions


def _restored_names(reader: GraphReader, restore: str) -> tuple[set[str], bool]:
    """Return the names that the ops behind the restore op read, and whether all of them are known."""
    names: set[str] = set()
    complete = True
    found_any = False
    functions: set[str] = set()
    seen: set[str] = set()
    pending = [restore.partition(":")[0]]
    while pending:
        name = pending.pop()
        node = reader.main.nodes.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        pending.extend(one.removeprefix("^").split(":")[0] for one in node.input)
        if node.op.startswith("Restore"):
            found_any = True
            complete &= _add_names(reader.main.nodes, node, names)
        function = reader.called(node)
        if function is not None and function.signature.name not in functions:
            functions.add(function.signature.name)
            inner = {one.name: one for one in function.node_def}
            for one in function.node_def:
                if one.op.startswith("Restore"):
                    found_any = True
                    complete &= _add_names(inner, one, names)
    return names, complete and found_any


def _add_names(nodes: dict[str, Any], node: Any, names: set[str]) -> bool:
    """Add the tensor names that a RestoreV2 op reads; False when they are no constant."""
    if node.op != "RestoreV2" or len(node.input) < 2:  # noqa: PLR2004 - prefix, tensor_names, slices
        return False
    source = nodes.get(node.input[1].partition(":")[0])
    if source is None or source.op != "Const":
        return False
    names.update(texts_of(source.attr["value"].tensor.string_val))
    return True
