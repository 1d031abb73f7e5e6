"""What is said of whole, damaged and foreign exports."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servingrepo.protos import saved_model_pb2
from servingrepo.savedmodel.inspection import Inspection, inspect_export
from servingrepo.savedmodel.values import Signature
from servingrepo.testing.bundles import write_bundle
from servingrepo.testing.exports import Served, saved_model, write_export
from tests.support import as_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = [
    "serving/saved_model_counter/00000123",
    "serving/saved_model_half_plus_three/00000123",
    "serving/saved_model_half_plus_two_2_versions/00000123",
    "serving/saved_model_half_plus_two_2_versions/00000124",
    "serving/saved_model_half_plus_two_cpu/00000123",
    "serving/saved_model_half_plus_two_cpu_with_saved_model_config/00000123",
    "serving/saved_model_half_plus_two_mkl/00000123",
    "serving/saved_model_half_plus_two_mlmd/00000123",
    "serving/saved_model_half_plus_two_tf2_cpu/00000123",
    "tfx/estimator_run/export/chicago-taxi/1646034756",
]
BAD = {
    "serving/bad_half_plus_two/00000123": ("session-bundle", "unsupported"),
    "serving/parse_example_tflite/00000123": ("tflite-only", "unsupported"),
    "serving/saved_model_half_plus_two_gpu/00000123": ("gpu-pinned", "unsupported"),
    "serving/saved_model_half_plus_two_gpu_trt/00000123": ("gpu-pinned", "unsupported"),
    "serving/saved_model_half_plus_two_tflite/00000123": ("tflite-only", "unsupported"),
    "tfx/pusher_model_push/1584391735": ("removed-op", "unsupported"),
    "tfx/transform_fn": ("no-serve-tag", "unsupported"),
    "tfx/estimator_run": ("no-saved-model", "missing"),
}


def slugs(found: Inspection) -> list[str]:
    return [one.slug for one in found.defects]


@pytest.mark.corpus
@pytest.mark.parametrize("name", GOOD)
def test_inspect_export_of_a_good_model_of_others_finds_no_defect(corpus: Path, name: str) -> None:
    found = inspect_export(corpus / name)
    assert found.defects == ()
    assert found.signatures
    assert found.needs_variables
    assert found.tensorflow_version


@pytest.mark.corpus
@pytest.mark.parametrize("name", sorted(BAD))
def test_a_bad_model_of_others_has_the_right_defect(corpus: Path, name: str) -> None:
    found = inspect_export(corpus / name)
    assert [(one.slug, one.kind) for one in found.defects] == [BAD[name]]
    assert all(one.message and one.hint for one in found.defects)


@pytest.mark.corpus
@pytest.mark.parametrize("name", [one for one in GOOD if "half_plus" in one])
def test_inspect_export_with_variables_taken_away_says_so(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "1"
    shutil.copytree(corpus / name, path)
    shutil.rmtree(path / "variables")
    assert slugs(inspect_export(path)) == ["variables-missing"]


@pytest.mark.corpus
def test_a_tf2_model_has_its_default_signature_alone(
    corpus: Path,
) -> None:
    found = inspect_export(corpus / "serving/saved_model_half_plus_two_tf2_cpu/00000123")
    assert [one.key for one in found.signatures] == [
        "classify_x2_to_y3",
        "classify_x_to_y",
        "regress_x2_to_y3",
        "regress_x_to_y",
        "regress_x_to_y2",
        "serving_default",
    ]
    default = found.signature("serving_default")
    assert default is not None
    assert [(one.alias, one.dtype, one.shape, one.has_default) for one in default.inputs] == [
        ("x", "float32", (1,), True)
    ]
    assert found.fingerprint is not None
    assert {one.verdict for one in found.fingerprint.fields} == {"matches"}


@pytest.mark.corpus
def test_inspect_export_of_reference_dtypes_reduces_them_to_their_base(corpus: Path) -> None:
    found = inspect_export(corpus / "serving/saved_model_counter/00000123")
    assert {spec.dtype for one in found.signatures for spec in one.outputs} == {"float32"}


@pytest.mark.corpus
def test_a_signature_with_a_wrong_dtype_is_noted(
    corpus: Path,
) -> None:
    found = inspect_export(corpus / "serving/saved_model_half_plus_three/00000123")
    assert found.notes == (
        (
            "signature tensorflow/serving/regress says that input inputs is float32, "
            "but the graph wants string"
        ),
    )


@pytest.mark.parametrize("variables", [True, False])
def test_inspect_export_of_a_whole_export_has_nothing_to_say(
    tmp_path: Path, *, variables: bool
) -> None:
    path = write_export(
        tmp_path / "1", variables=variables, fingerprint=True, assets={"a.txt": b"a\n"}
    )
    found = inspect_export(path)
    assert found.defects == ()
    assert found.notes == ()
    assert found.needs_variables is variables
    assert found.assets == ("a.txt",)
    assert found.size == (path / "saved_model.pb").stat().st_size
    assert found.fingerprint is not None
    assert found.fingerprint.field("checkpoint_hash").verdict == "matches"


def test_inspect_export_of_signatures_survives_json(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", signatures=[Served(), Served(key="b", api="regress")])
    found = inspect_export(path)
    encoded = msgspec.json.encode(found.signatures)
    assert msgspec.json.decode(encoded, type=tuple[Signature, ...]) == found.signatures
    assert msgspec.json.decode(msgspec.json.encode(found))["file"] == "saved_model.pb"


def truncate_graph(path: Path) -> None:
    content = (path / "saved_model.pb").read_bytes()
    (path / "saved_model.pb").write_bytes(content[: len(content) // 2])


def empty_graph(path: Path) -> None:
    (path / "saved_model.pb").write_bytes(b"")


def garble_graph(path: Path) -> None:
    (path / "saved_model.pb").write_bytes(b"\x08\x01garbage")


def drop_meta_graphs(path: Path) -> None:
    (path / "saved_model.pb").write_bytes(b"\x08\x01")


def graph_as_directory(path: Path) -> None:
    (path / "saved_model.pb").unlink()
    (path / "saved_model.pb").mkdir()


def graph_as_fifo(path: Path) -> None:
    (path / "saved_model.pb").unlink()
    os.mkfifo(path / "saved_model.pb")


def graph_as_dangling_link(path: Path) -> None:
    (path / "saved_model.pb").unlink()
    (path / "saved_model.pb").symlink_to("nowhere")


def drop_graph(path: Path) -> None:
    (path / "saved_model.pb").unlink()


def chunk_graph(path: Path) -> None:
    (path / "saved_model.pb").rename(path / "saved_model.cpb")


def drop_variables(path: Path) -> None:
    shutil.rmtree(path / "variables")


def drop_index(path: Path) -> None:
    (path / "variables" / "variables.index").unlink()


def empty_index(path: Path) -> None:
    (path / "variables" / "variables.index").write_bytes(b"")


def truncate_index(path: Path) -> None:
    content = (path / "variables" / "variables.index").read_bytes()
    (path / "variables" / "variables.index").write_bytes(content[:-10])


def flip_index(path: Path) -> None:
    content = bytearray((path / "variables" / "variables.index").read_bytes())
    content[8] ^= 1
    (path / "variables" / "variables.index").write_bytes(content)


def drop_shard(path: Path) -> None:
    (path / "variables" / "variables.data-00000-of-00001").unlink()


def empty_shard(path: Path) -> None:
    (path / "variables" / "variables.data-00000-of-00001").write_bytes(b"")


def shorten_shard(path: Path) -> None:
    os.truncate(path / "variables" / "variables.data-00000-of-00001", 7)


def drop_asset(path: Path) -> None:
    (path / "assets" / "words.txt").unlink()


def swap_variables(path: Path) -> None:
    write_bundle(path / "variables" / "variables", {"slope": 1.0, "other": 2.0})


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (truncate_graph, [("unreadable-graph", "damaged")]),
        (empty_graph, [("unreadable-graph", "damaged")]),
        (garble_graph, [("unreadable-graph", "damaged")]),
        (drop_meta_graphs, [("unreadable-graph", "damaged")]),
        (graph_as_directory, [("unreadable-graph", "damaged")]),
        (graph_as_fifo, [("unreadable-graph", "damaged")]),
        (graph_as_dangling_link, [("unreadable-graph", "damaged")]),
        (drop_graph, [("no-saved-model", "missing")]),
        (chunk_graph, [("chunked", "unsupported")]),
        (drop_variables, [("variables-missing", "damaged")]),
        (drop_index, [("variables-missing", "damaged")]),
        (empty_index, [("variables-index", "damaged")]),
        (truncate_index, [("variables-index", "damaged")]),
        (flip_index, [("variables-index", "damaged")]),
        (drop_shard, [("shard-missing", "damaged")]),
        (empty_shard, [("shard-empty", "damaged")]),
        (shorten_shard, [("shard-truncated", "damaged")]),
        (drop_asset, [("asset-missing", "damaged")]),
        (swap_variables, [("variables-incomplete", "damaged")]),
        (shutil.rmtree, [("no-directory", "missing")]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_inspect_export_of_a_damaged_export_finds_exactly_that(
    tmp_path: Path, damage: Callable[[Path], None], expected: list[tuple[str, str]]
) -> None:
    path = write_export(tmp_path / "1", variables=True, assets={"words.txt": b"a\n"})
    damage(path)
    found = inspect_export(path)
    assert [(one.slug, one.kind) for one in found.defects] == expected


@pytest.mark.parametrize("character", ["\u00a0", "\u3000", "\ufeff", "\x01"])
def test_inspect_export_of_a_text_graph_that_tensorflow_refuses_says_where(
    tmp_path: Path, character: str
) -> None:
    file = as_text(write_export(tmp_path / "1"))
    assert inspect_export(tmp_path / "1").defects == ()
    file.write_text(f"\n {character}{file.read_text()}")
    (found,) = inspect_export(tmp_path / "1").defects
    assert (found.slug, found.kind) == ("unreadable-graph", "damaged")
    assert f"2:2: the character U+{ord(character):04X}" in found.message


def test_inspect_export_with_several_defects_finds_all_of_them(tmp_path: Path) -> None:
    path = write_export(
        tmp_path / "1", variables=True, assets={"words.txt": b"a\n"}, device="/device:GPU:0"
    )
    drop_shard(path)
    drop_asset(path)
    assert slugs(inspect_export(path)) == ["shard-missing", "asset-missing", "gpu-pinned"]


def test_inspect_export_with_one_of_two_shards_missing_names_it(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", variables=True)
    drop_variables(path)
    (path / "variables").mkdir()
    write_bundle(path / "variables" / "variables", {"slope": 1.0, "offset": 2.0}, num_shards=2)
    assert inspect_export(path).defects == ()
    (path / "variables" / "variables.data-00001-of-00002").unlink()
    (defect,) = inspect_export(path).defects
    assert "variables/variables.data-00001-of-00002" in defect.message
    empty_index(path)
    assert slugs(inspect_export(path)) == ["variables-index", "shard-missing"]


def test_inspect_export_without_the_tag_serve_lists_the_tag_sets_there_are(
    tmp_path: Path,
) -> None:
    found = inspect_export(write_export(tmp_path / "1", tags=("serve", "gpu")))
    assert slugs(found) == ["no-serve-tag"]
    assert "{gpu, serve}" in found.defects[0].message
    assert found.signatures == ()


def test_inspect_export_with_an_asset_outside_of_assets_does_not_trust_it(
    tmp_path: Path,
) -> None:
    path = write_export(tmp_path / "1", assets={"words.txt": b"a\n"})
    message = saved_model(assets=("../../secret",))
    (path / "saved_model.pb").write_bytes(message.SerializeToString())
    assert slugs(inspect_export(path)) == ["asset-outside"]


def test_inspect_export_with_a_missing_asset_that_nothing_reads_only_notes_it(
    tmp_path: Path,
) -> None:
    path = write_export(tmp_path / "1")
    message = saved_model()
    message.meta_graphs[0].asset_file_def.add(filename="foo.txt").tensor_info.name = "slope:0"
    message.meta_graphs[0].asset_file_def[0].tensor_info.name = "lonely:0"
    (path / "saved_model.pb").write_bytes(message.SerializeToString())
    found = inspect_export(path)
    assert found.defects == ()
    assert found.notes == ("the graph names, but does not read, missing files: assets/foo.txt",)


@pytest.mark.parametrize(
    ("op", "slug"),
    [
        ("TRTEngineOp", "tensorrt"),
        ("_MklConv2D", "mkl"),
        ("EagerPyFunc", "python-op"),
        ("BoostedTreesPredict", "removed-op"),
    ],
)
@pytest.mark.parametrize("called", [True, False])
def test_an_unknown_op_in_a_called_function_is_found(
    tmp_path: Path, op: str, slug: str, *, called: bool
) -> None:
    path = write_export(tmp_path / "1")
    message = saved_model()
    graph = message.meta_graphs[0].graph_def
    function = graph.library.function.add()
    function.signature.name = "inner"
    function.node_def.add(name="bad", op=op)
    if called:
        graph.node.add(name="call", op="PartitionedCall").attr["f"].func.name = "inner"
    (path / "saved_model.pb").write_bytes(message.SerializeToString())
    assert slugs(inspect_export(path)) == ([slug] if called else [])


@pytest.mark.parametrize(("config", "slug"), [(b"", "gpu-pinned"), (b"8\x01", None)])
def test_a_gpu_in_a_function_counts_if_pinned(
    tmp_path: Path, config: bytes, slug: str | None
) -> None:
    path = write_export(tmp_path / "1")
    message = saved_model()
    graph = message.meta_graphs[0].graph_def
    function = graph.library.function.add()
    function.signature.name = "inner"
    function.node_def.add(name="pinned", op="Mul", device="/job:a/device:gpu:0")
    call = graph.node.add(name="call", op="StatefulPartitionedCall")
    call.attr["f"].func.name = "inner"
    call.attr["config_proto"].s = config
    (path / "saved_model.pb").write_bytes(message.SerializeToString())
    found = inspect_export(path)
    assert slugs(found) == ([slug] if slug else [])
    assert bool(found.notes) is (slug is None)


@pytest.mark.parametrize(
    ("name", "expected"), [(b"_CHECKPOINTABLE_OBJECT_GRAPH", []), (b"v", ["variables-missing"])]
)
def test_a_tf2_model_that_restores_needs_variables(
    tmp_path: Path, name: bytes, expected: list[str]
) -> None:
    path = write_export(tmp_path / "1")
    message = saved_model()
    meta_graph = message.meta_graphs[0]
    meta_graph.saver_def.restore_op_name = "StatefulPartitionedCall_1"
    call = meta_graph.graph_def.node.add(
        name="StatefulPartitionedCall_1", op="StatefulPartitionedCall", input=["saver_filename"]
    )
    call.attr["f"].func.name = "restore"
    function = meta_graph.graph_def.library.function.add()
    function.signature.name = "restore"
    names = function.node_def.add(name="names", op="Const")
    names.attr["value"].tensor.string_val.append(name)
    function.node_def.add(
        name="RestoreV2", op="RestoreV2", input=["prefix", "names:output:0", "slices:output:0"]
    )
    (path / "saved_model.pb").write_bytes(message.SerializeToString())
    assert slugs(inspect_export(path)) == expected


def test_inspect_export_with_an_unreadable_fingerprint_only_notes_it(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1")
    (path / "fingerprint.pb").write_bytes(b"\xff\xff\xff")
    found = inspect_export(path)
    assert found.defects == ()
    assert found.fingerprint is None
    assert "fingerprint.pb" in found.notes[0]


def test_inspect_export_whose_index_was_replaced_is_damaged(tmp_path: Path) -> None:
    path = write_export(tmp_path / "1", variables=True, fingerprint=True)
    write_bundle(path / "variables" / "variables", {"slope": 9.0, "offset": 9.0})
    found = inspect_export(path)
    assert found.fingerprint is not None
    field = found.fingerprint.field("checkpoint_hash")
    assert field.verdict == "differs"
    assert field.computed != field.stored
    assert slugs(found) == ["fingerprint"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_inspect_export_of_a_mutated_export_never_raises(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "mutated"
    shutil.rmtree(path, ignore_errors=True)
    served = [Served(), Served(key="e", api="regress", feed="parse_example_v2")]
    write_export(path, signatures=served, variables=True, fingerprint=True)
    name = data.draw(
        st.sampled_from(["saved_model.pb", "variables/variables.index", "fingerprint.pb"])
    )
    content = bytearray((path / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (path / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found = inspect_export(path)
    msgspec.json.encode(found)


def test_inspect_export_of_functions_that_call_each_other_for_ever_ends(tmp_path: Path) -> None:
    path = write_export(
        tmp_path / "1", signatures=[Served(key="e", api="regress", feed="parse_example")]
    )
    message = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = message.meta_graphs[0].graph_def
    for name, other in (("ping", "pong"), ("pong", "ping")):
        function = graph.library.function.add()
        function.signature.name = name
        function.signature.input_arg.add(name="arg")
        for number in range(3):
            call = function.node_def.add(name=f"call{number}", op="PartitionedCall", input=["arg"])
            call.attr["f"].func.name = other
    call = graph.node.add(name="start", op="PartitionedCall", input=["e/examples"])
    call.attr["f"].func.name = "ping"
    (path / "saved_model.pb").write_bytes(message.SerializeToString())
    found = inspect_export(path)
    assert [one.key for one in found.examples[0].features] == ["x"]
