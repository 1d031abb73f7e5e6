from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.protos import types_pb2
from servingrepo.savedmodel.effects import GUARDED, effect_kind
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.savedmodel.signatures import INIT_OP_KEY
from servingrepo.savedmodel.values import Effect
from servingrepo.testing.exports import write_export
from tests.savedmodel.graphs import call, changed, const, export_with, function, node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def effects(path: Path) -> dict[str, tuple[str, ...]]:
    demands = inspect_export(path).demands
    assert demands is not None
    return {one.op: one.nodes for one in demands.effects}


def test_a_plain_export_reaches_for_nothing_with_variables_and_vocabularies_too(
    tmp_path: Path,
) -> None:
    assert effects(write_export(tmp_path, variables=True, assets={"words": b"a\n"})) == {}


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        *((op, "file") for op in sorted(GUARDED)),
        ("MatchingFiles", "file"),
        ("TFRecordDataset", "file"),
        ("InitializeTableFromTextFileV2", "file"),
        ("WriteScalarSummary", "file"),
        ("DebugIdentityV3", "file"),
        ("RpcCall", "network"),
        ("DataServiceDatasetV4", "network"),
        ("CollectiveReduceV3", "network"),
        ("_NcclBroadcastSend", "network"),
        ("RemoteCall", "network"),
        ("Abort", "process"),
        ("DatasetFromGraph", "process"),
    ],
)
def test_an_operation_with_an_effect_is_found_in_the_main_graph(
    op: str, kind: str, tmp_path: Path
) -> None:
    demands = inspect_export(export_with(tmp_path, op)).demands
    assert demands is not None
    files = ("/etc/passwd",) if op in {"ReadFile", "TFRecordDataset"} else ()
    assert demands.effects == (Effect(op=op, kind=kind, nodes=(f"odd/{op}",), files=files),)  # type: ignore[arg-type]


@pytest.mark.parametrize("op", ["Const", "MatMul", "ParseExampleV2", "ShardedFilename", "Print"])
def test_ordinary_operations_have_none(op: str) -> None:
    assert effect_kind(op) is None


def test_effects_in_functions_count_where_the_graph_can_reach_them(tmp_path: Path) -> None:
    def change(meta_graph: Any) -> None:
        graph = meta_graph.graph_def
        node(function(meta_graph, "inner").node_def, "read", "ReadFile", [])
        mapped = function(meta_graph, "mapped")
        data = node(mapped.node_def, "data", "MapDataset", [])
        data.attr["f"].func.name = "inner"
        branches = node(graph.node, "branches", "Case", [])
        branches.attr["branches"].list.func.add(name="mapped")
        node(function(meta_graph, "by_name").node_def, "write", "WriteFile", [])
        node(graph.node, "direct", "by_name", [])
        node(function(meta_graph, "nobody").node_def, "never", "Abort", [])

    path = changed(write_export(tmp_path), change)
    assert effects(path) == {"ReadFile": ("inner/read",), "WriteFile": ("by_name/write",)}


def restoring_function(meta_graph: Any, *, prefix: str) -> None:
    """Make the restore op a function that reads a checkpoint, as TensorFlow 2 does."""
    graph = meta_graph.graph_def
    inner = function(meta_graph, "restore_fn", "file_prefix")
    const(inner.node_def, "elsewhere", b"/srv/secret")
    node(inner.node_def, "same", "Identity", ["file_prefix"])
    restore = node(inner.node_def, "RestoreV2", "RestoreV2", [prefix, "names", "slices"])
    restore.attr["dtypes"].list.type.append(types_pb2.DT_FLOAT)
    saved = function(meta_graph, "save_fn", "file_prefix")
    node(saved.node_def, "SaveV2", "SaveV2", ["file_prefix"])
    node(saved.node_def, "MergeV2Checkpoints", "MergeV2Checkpoints", ["file_prefix"])
    node(graph.node, "saver_filename", "Placeholder", [])
    call(graph.node, "restore", "restore_fn", ["saver_filename"])
    call(graph.node, "save", "save_fn", ["saver_filename"])
    meta_graph.saver_def.filename_tensor_name = "saver_filename:0"
    meta_graph.saver_def.restore_op_name = "restore"
    meta_graph.saver_def.save_tensor_name = "save:0"


def test_the_saver_s_own_operations_are_no_effects(tmp_path: Path) -> None:
    def change(meta_graph: Any) -> None:
        restoring_function(meta_graph, prefix="same:output:0")

    assert effects(changed(write_export(tmp_path), change)) == {}


def test_a_restore_op_that_reads_another_checkpoint_is_one(tmp_path: Path) -> None:
    def change(meta_graph: Any) -> None:
        restoring_function(meta_graph, prefix="elsewhere:output:0")

    found = effects(changed(write_export(tmp_path), change))
    assert found == {"RestoreV2": ("restore_fn/RestoreV2",)}


def test_the_saver_s_functions_called_by_a_signature_are_effects(tmp_path: Path) -> None:
    def change(meta_graph: Any) -> None:
        restoring_function(meta_graph, prefix="same:output:0")
        graph = meta_graph.graph_def
        call(graph.node, "sly", "save_fn", ["saver_filename"])
        next(one for one in graph.node if one.name == "serving_default/y").input.append("^sly")

    found = effects(changed(write_export(tmp_path), change))
    assert found == {
        "MergeV2Checkpoints": ("save_fn/MergeV2Checkpoints",),
        "SaveV2": ("save_fn/SaveV2",),
    }


@pytest.mark.parametrize(("source", "harmless"), [("asset_0", True), ("secret", False)])
def test_a_table_reads_assets_alone_through_a_function(
    source: str, tmp_path: Path, *, harmless: bool
) -> None:
    def change(meta_graph: Any) -> None:
        graph = meta_graph.graph_def
        const(graph.node, "secret", b"/etc/passwd")
        inner = function(meta_graph, "fill", "name")
        table = ["table", "name"]
        node(inner.node_def, "load", "InitializeTableFromTextFileV2", table)
        call(graph.node, "filled", "fill", [source])

    found = effects(changed(write_export(tmp_path, assets={"words": b"a\n"}), change))
    assert found == ({} if harmless else {"InitializeTableFromTextFileV2": ("fill/load",)})


def as_tf2_names_an_asset(meta_graph: Any) -> None:
    """Keep an asset's path in a variable, and fill a table from there, as tf.saved_model.save does."""
    nodes = meta_graph.graph_def.node
    handle = node(nodes, "kept", "VarHandleOp", [])
    handle.attr["shared_name"].s = b"kept"
    node(nodes, "kept/Assign", "AssignVariableOp", ["kept", "asset_0"])
    node(nodes, "kept/Read/ReadVariableOp", "ReadVariableOp", ["kept"])
    node(nodes, "read", "ReadVariableOp", ["kept", "^kept/Assign"])
    inner = function(meta_graph, "fill", "name")
    node(inner.node_def, "load", "InitializeTableFromTextFileV2", ["table", "name"])
    call(nodes, "filled", "fill", ["read"])
    node(nodes, "all", "NoOp", ["^filled", "^kept/Assign"])
    meta_graph.signature_def[INIT_OP_KEY].outputs[INIT_OP_KEY].name = "all"


def test_a_table_reads_an_asset_by_a_variable_s_path(tmp_path: Path) -> None:
    path = write_export(tmp_path, assets={"words": b"a\n"})
    assert effects(changed(path, as_tf2_names_an_asset)) == {}


@pytest.mark.tf
def test_a_table_that_tensorflow_2_saved_with_its_vocabulary_reaches_for_nothing(
    tensorflow_models: Path,
) -> None:
    assert inspect_export(tensorflow_models / "m").assets == ("words.txt",)
    assert effects(tensorflow_models / "m") == {}


def another_value(meta_graph: Any) -> None:
    node(meta_graph.graph_def.node, "sly", "AssignVariableOp", ["kept", "secret"])


def in_a_function(meta_graph: Any) -> None:
    inner = function(meta_graph, "assign", "variable")
    node(inner.node_def, "sly", "AssignVariableOp", ["variable", "secret"])
    call(meta_graph.graph_def.node, "sly", "assign", ["kept"])


def by_its_name(meta_graph: Any) -> None:
    handle = node(meta_graph.graph_def.node, "other", "VarHandleOp", [])
    handle.attr["shared_name"].s = b"kept"
    node(meta_graph.graph_def.node, "sly", "AssignVariableOp", ["other", "secret"])


def by_its_name_in_a_function(meta_graph: Any) -> None:
    node(function(meta_graph, "unseen").node_def, "kept", "VarHandleOp", [])


def fed_by_a_client(meta_graph: Any) -> None:
    meta_graph.signature_def["serving_default"].inputs["file"].name = "read:0"


def assigned_by_a_request(meta_graph: Any) -> None:
    meta_graph.signature_def["serving_default"].outputs["file"].name = "kept/Assign:0"


@pytest.mark.parametrize(
    "change",
    [
        another_value,
        in_a_function,
        by_its_name,
        by_its_name_in_a_function,
        fed_by_a_client,
        assigned_by_a_request,
    ],
)
def test_a_variable_that_may_hold_another_path_excuses_nothing(
    change: Callable[[Any], None], tmp_path: Path
) -> None:
    def both(meta_graph: Any) -> None:
        const(meta_graph.graph_def.node, "secret", b"/etc/passwd")
        as_tf2_names_an_asset(meta_graph)
        change(meta_graph)

    path = write_export(tmp_path, assets={"words": b"a\n"})
    assert effects(changed(path, both)) == {"InitializeTableFromTextFileV2": ("fill/load",)}


@pytest.mark.parametrize(("op", "harmless"), [("Const", False), ("Placeholder", True)])
def test_requests_are_not_fed_the_paths_of_assets(
    op: str, tmp_path: Path, *, harmless: bool
) -> None:
    """What stands in the graph counts for them, which is any path at all."""

    def change(meta_graph: Any) -> None:
        nodes = meta_graph.graph_def.node
        next(one for one in nodes if one.name == "asset_0").op = op
        node(nodes, "lines", "TextLineDataset", ["asset_0", "none", "none"])
        meta_graph.signature_def["serving_default"].outputs["lines"].name = "lines:0"

    found = effects(changed(write_export(tmp_path, assets={"words": b"a\n"}), change))
    assert found == ({} if harmless else {"TextLineDataset": ("lines",)})


def test_a_cache_whose_name_a_client_can_feed_is_an_effect(tmp_path: Path) -> None:
    def change(meta_graph: Any) -> None:
        const(meta_graph.graph_def.node, "cache_name", b"")
        node(meta_graph.graph_def.node, "cached", "CacheDatasetV2", ["data", "cache_name"])
        meta_graph.signature_def["serving_default"].inputs["name"].name = "cache_name:0"

    assert effects(changed(write_export(tmp_path), change)) == {"CacheDatasetV2": ("cached",)}


@pytest.mark.parametrize(("name", "harmless"), [(b"", True), (b"/tmp/cache", False)])
def test_a_cache_in_memory_is_no_effect(name: bytes, tmp_path: Path, *, harmless: bool) -> None:
    def change(meta_graph: Any) -> None:
        const(meta_graph.graph_def.node, "cache_name", name)
        node(meta_graph.graph_def.node, "cached", "CacheDatasetV2", ["data", "cache_name"])

    assert (effects(changed(write_export(tmp_path), change)) == {}) is harmless


def test_functions_that_call_each_other_for_ever_end(tmp_path: Path) -> None:
    """Twice at every level would be 2^40 calls; a function that calls itself has no end at all."""

    def change(meta_graph: Any) -> None:
        for level in range(40):
            body = function(meta_graph, f"level{level}").node_def
            for side in "ab":
                call(body, side, f"level{level + 1}")
        last = function(meta_graph, "level40").node_def
        node(last, "read", "ReadFile", [])
        call(last, "again", "level0")
        call(meta_graph.graph_def.node, "start", "level0")

    assert effects(changed(write_export(tmp_path), change)) == {"ReadFile": ("level40/read",)}


@pytest.mark.parametrize(("depth", "calls"), [(200, 1), (1, 3_000)])
def test_a_file_is_not_hidden_by_depth_or_by_number(depth: int, calls: int, tmp_path: Path) -> None:
    """An asset handed down first must not excuse another file that is handed down later."""

    def change(meta_graph: Any) -> None:
        graph = meta_graph.graph_def
        const(graph.node, "secret", b"/etc/passwd")
        for level in range(depth):
            body = function(meta_graph, f"level{level}", "name").node_def
            call(body, "next", f"level{level + 1}", ["name"])
        last = function(meta_graph, f"level{depth}", "name").node_def
        for number in range(20):
            node(last, f"load{number}", "InitializeTableFromTextFileV2", ["table", "name"])
        for number in range(calls - 1):
            call(graph.node, f"good{number}", "level0", ["asset_0"])
        call(graph.node, "sly", "level0", ["secret"])

    found = effects(changed(write_export(tmp_path, assets={"words": b"a\n"}), change))
    assert set(found) == {"InitializeTableFromTextFileV2"}


@pytest.mark.corpus
def test_published_models_reach_for_nothing(corpus: Path) -> None:
    exports = [path.parent for path in corpus.rglob("saved_model.pb")]
    assert len(exports) > 10
    found = {str(path): inspect_export(path).demands for path in exports}
    assert {
        path: one.effects for path, one in found.items() if one is not None and one.effects
    } == {}
