from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.testing.exports import write_export
from tests.savedmodel.graphs import changed, function, node

if TYPE_CHECKING:
    from pathlib import Path


def state(path: Path) -> tuple[str, ...]:
    demands = inspect_export(path).demands
    assert demands is not None
    return demands.state


def test_restoring_and_initialising_change_no_state(tmp_path: Path) -> None:
    assert state(write_export(tmp_path, variables=True, assets={"words": b"a\n"})) == ()


@pytest.mark.parametrize(
    "op", ["AssignAddVariableOp", "ResourceScatterAdd", "LookupTableInsertV2", "RngReadAndSkip"]
)
def test_a_counter_behind_an_output_is_state(op: str, tmp_path: Path) -> None:
    """Also where the output only waits for it, and where a function does it that a function calls."""

    def directly(meta_graph: Any) -> None:
        node(meta_graph.graph_def.node, "count", op, [])
        fetched(meta_graph).input.append("^count")

    def deep(meta_graph: Any) -> None:
        node(function(meta_graph, "inner").node_def, "count", op, [])
        outer = function(meta_graph, "outer")
        node(outer.node_def, "call", "PartitionedCall", []).attr["f"].func.name = "inner"
        called = node(meta_graph.graph_def.node, "call", "StatefulPartitionedCall", [])
        called.attr["f"].func.name = "outer"
        fetched(meta_graph).input.append("^call")

    assert state(changed(write_export(tmp_path / "direct"), directly)) == (op,)
    assert state(changed(write_export(tmp_path / "deep"), deep)) == (op,)


def test_what_no_output_needs_changes_nothing(tmp_path: Path) -> None:
    def beside(meta_graph: Any) -> None:
        node(meta_graph.graph_def.node, "count", "AssignAddVariableOp", [])
        node(function(meta_graph, "train").node_def, "count", "AssignAddVariableOp", [])

    assert state(changed(write_export(tmp_path), beside)) == ()


def fetched(meta_graph: Any) -> Any:
    """Return the node of a signature's output."""
    (output,) = meta_graph.signature_def["serving_default"].outputs.values()
    name = output.name.partition(":")[0]
    return next(one for one in meta_graph.graph_def.node if one.name == name)
