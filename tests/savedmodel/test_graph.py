"""Features of tf.Examples are read from the graph, wherever the parsing op lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.protos import graph_pb2, meta_graph_pb2, types_pb2
from servingrepo.savedmodel.graph import GraphReader, example_inputs
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.savedmodel.values import Feature
from servingrepo.testing.exports import Feed, Served, write_export

if TYPE_CHECKING:
    from pathlib import Path

X = Feature(key="x", dtype="float32", kind="dense", shape=(1,), has_default=False)


def const(nodes: Any, name: str, values: list[bytes], *, scalar: bool = False) -> None:
    node = nodes.add(name=name, op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = types_pb2.DT_STRING
    if not scalar:
        tensor.tensor_shape.dim.add(size=len(values))
    tensor.string_val.extend(values)


def definitions(tensor: str) -> dict[str, Any]:
    definition = meta_graph_pb2.SignatureDef()
    definition.inputs["inputs"].name = tensor
    return {"serving_default": definition}


@pytest.mark.parametrize("feed", ["parse_example", "parse_example_v2"])
def test_example_inputs_of_both_versions_of_parse_example_are_the_same(
    tmp_path: Path, feed: Feed
) -> None:
    path = write_export(tmp_path / "1", signatures=[Served(key="r", api="regress", feed=feed)])
    (found,) = inspect_export(path).examples
    assert (found.signature, found.alias, found.single) == ("r", "inputs", False)
    assert found.features == (X,)


@pytest.mark.corpus
def test_example_inputs_inside_functions_of_a_tf2_export_are_found(corpus: Path) -> None:
    found = inspect_export(corpus / "serving/saved_model_half_plus_two_tf2_cpu/00000123")
    assert {(one.signature, one.alias) for one in found.examples} == {
        ("classify_x_to_y", "inputs"),
        ("regress_x_to_y", "inputs"),
        ("regress_x_to_y2", "inputs"),
    }
    assert {one.features[0] for one in found.examples} == {X}


@pytest.mark.corpus
def test_example_inputs_of_an_estimator_are_all_its_sparse_features(corpus: Path) -> None:
    found = inspect_export(corpus / "tfx/estimator_run/export/chicago-taxi/1646034756")
    taken = found.example_input("predict", "examples")
    assert taken is not None
    assert len(taken.features) == 17
    assert {one.kind for one in taken.features} == {"sparse"}
    assert {one.key: one.dtype for one in taken.features}["company"] == "string"


def test_example_inputs_with_keys_captured_by_a_function_come_from_the_caller() -> None:
    graph = graph_pb2.GraphDef()
    graph.node.add(name="in", op="Placeholder")
    const(graph.node, "dense", [b"b", b"a"])
    const(graph.node, "none", [])
    inner = graph.library.function.add()
    inner.signature.name = "inner"
    for name in ("serialized", "keys", "nothing"):
        inner.signature.input_arg.add(name=name)
    inner.signature.output_arg.add(name="out")
    inner.ret["out"] = "reshaped:output:0"
    inner.node_def.add(name="reshaped", op="Reshape", input=["serialized"])
    outer = graph.library.function.add()
    outer.signature.name = "outer"
    for name in ("first", "keys", "nothing"):
        outer.signature.input_arg.add(name=name)
    call = outer.node_def.add(name="call", op="PartitionedCall", input=["first", "keys", "nothing"])
    call.attr["f"].func.name = "inner"
    # The inner function hands its argument back, and the outer one parses it.
    parse = outer.node_def.add(
        name="parse",
        op="ParseExampleV2",
        input=["call:output:0", "nothing", "nothing", "keys", "nothing", "nothing", "nothing"],
    )
    parse.attr["Tdense"].list.type.extend([types_pb2.DT_INT64, types_pb2.DT_STRING])
    for sizes in ([2, 3], [-1]):
        shape = parse.attr["dense_shapes"].list.shape.add()
        for size in sizes:
            shape.dim.add(size=size)
    call = graph.node.add(
        name="main", op="StatefulPartitionedCall", input=["in", "dense", "none", "^other"]
    )
    call.attr["f"].func.name = "outer"
    (found,) = example_inputs(GraphReader(graph), definitions("in:0"))
    assert found.features == (
        Feature(key="a", dtype="string", kind="dense", shape=(None,), has_default=True),
        Feature(key="b", dtype="int64", kind="dense", shape=(2, 3), has_default=False),
    )


def test_example_inputs_of_sparse_and_ragged_features_are_all_optional() -> None:
    graph = graph_pb2.GraphDef()
    graph.node.add(name="in", op="Placeholder")
    for name, keys in (("names", []), ("sparse", [b"s"]), ("dense", []), ("ragged", [b"r"])):
        const(graph.node, name, keys)
    parse = graph.node.add(
        name="parse", op="ParseExampleV2", input=["in", "names", "sparse", "dense", "ragged"]
    )
    parse.attr["sparse_types"].list.type.append(types_pb2.DT_FLOAT)
    parse.attr["ragged_value_types"].list.type.append(types_pb2.DT_STRING)
    (found,) = example_inputs(GraphReader(graph), definitions("in:0"))
    assert [(one.key, one.kind, one.has_default) for one in found.features] == [
        ("r", "ragged", True),
        ("s", "sparse", True),
    ]


def test_example_inputs_of_parse_single_example_take_one() -> None:
    graph = graph_pb2.GraphDef()
    graph.node.add(name="in", op="Placeholder")
    const(graph.node, "default", [b"d"], scalar=True)
    parse = graph.node.add(name="parse", op="ParseSingleExample", input=["in", "default"])
    parse.attr["dense_keys"].list.s.append(b"word")
    parse.attr["Tdense"].list.type.append(types_pb2.DT_STRING)
    parse.attr["dense_shapes"].list.shape.add()
    (found,) = example_inputs(GraphReader(graph), definitions("in:0"))
    assert found.single
    assert found.features == (
        Feature(key="word", dtype="string", kind="dense", shape=(), has_default=True),
    )


def test_example_inputs_of_an_input_that_is_not_parsed_are_none() -> None:
    graph = graph_pb2.GraphDef()
    graph.node.add(name="in", op="Placeholder")
    graph.node.add(name="length", op="StringLength", input=["in"])
    assert example_inputs(GraphReader(graph), definitions("in:0")) == ()
