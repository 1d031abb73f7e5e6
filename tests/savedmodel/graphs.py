"""SavedModels whose graphs have an operation more than they should, for tests of what graphs ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servingrepo.protos import saved_model_pb2, types_pb2
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    """Change the MetaGraph of an export in place, and return its path."""
    file = path / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(message.meta_graphs[0])
    file.write_bytes(message.SerializeToString())
    return path


def export_with(path: Path, *ops: str, **options: Any) -> Path:
    """Write an export whose main graph has these operations, fed by a constant file name and by nothing else."""

    def change(meta_graph: Any) -> None:
        const(meta_graph.graph_def.node, "secret", b"/etc/passwd")
        for op in ops:
            node(meta_graph.graph_def.node, f"odd/{op}", op, ["secret"])

    return changed(write_export(path, **options), change)


def node(nodes: Any, name: str, op: str, inputs: Sequence[str]) -> Any:
    """Add a node to a graph or to a function's body."""
    made = nodes.add(name=name, op=op)
    made.input.extend(inputs)
    return made


def const(nodes: Any, name: str, text: bytes) -> Any:
    """Add a constant string."""
    made = node(nodes, name, "Const", [])
    made.attr["dtype"].type = types_pb2.DT_STRING
    made.attr["value"].tensor.dtype = types_pb2.DT_STRING
    made.attr["value"].tensor.string_val.append(text)
    return made


def function(meta_graph: Any, name: str, *arguments: str) -> Any:
    """Add a function with string arguments; its nodes are added to what is returned."""
    made = meta_graph.graph_def.library.function.add()
    made.signature.name = name
    for one in arguments:
        made.signature.input_arg.add(name=one, type=types_pb2.DT_STRING)
    return made


def call(nodes: Any, name: str, called: str, inputs: Sequence[str] = ()) -> Any:
    """Add a call of a function."""
    made = node(nodes, name, "StatefulPartitionedCall", inputs)
    made.attr["f"].func.name = called
    return made
