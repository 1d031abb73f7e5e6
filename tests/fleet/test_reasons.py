"""Exports that cannot be served or proven: the reason is the right one, and the way out works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import LoadFailed, SmokeFailed, UnsafeOperation, UnsupportedExport
from servingrepo.protos import saved_model_pb2, types_pb2
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.smoke.report import SmokeReport, Verdict, judge
from servingrepo.testing.exports import write_export
from tests.savedmodel.graphs import changed, export_with
from tests.support import command, new_repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def refused(tmp_path: Path, export: Path, *more: str) -> Any:
    """Promote an export, and return what was said; nothing is left of it."""
    repo = new_repository(tmp_path / "serving")
    done = command("--root", repo.root, "promote", export, "--model", "half", *more)
    assert not list((repo.root / "models").glob("half/[0-9]*"))
    return done


def sparse(info: Any) -> None:
    info.ClearField("name")
    info.coo_sparse.values_tensor_name = "values:0"


def ragged(info: Any) -> None:
    info.ClearField("name")
    info.composite_tensor.components.add(name="flat_values:0")


@pytest.mark.parametrize(
    ("side", "encode", "said"),
    [
        ("outputs", sparse, ("output y of signature serving_default is sparse", "dense_shape")),
        ("inputs", sparse, ("input x of signature serving_default is sparse", "dense_shape")),
        ("outputs", ragged, ("output y of signature serving_default is ragged", "row_splits")),
    ],
)
def test_a_tensor_made_of_parts_is_refused_by_name(
    tmp_path: Path, side: str, encode: Callable[[Any], None], said: tuple[str, ...]
) -> None:
    def change(meta_graph: Any) -> None:
        encode(next(iter(getattr(meta_graph.signature_def["serving_default"], side).values())))

    done = refused(tmp_path, changed(write_export(tmp_path / "run"), change))
    assert done.code == UnsupportedExport.exit_code, done.err
    for part in said:
        assert part in done.err


def test_an_export_without_a_signature_is_refused(tmp_path: Path) -> None:
    def change(meta_graph: Any) -> None:
        del meta_graph.signature_def["serving_default"]
        initial = meta_graph.signature_def["__saved_model_init_op"]
        initial.outputs["__saved_model_init_op"].name = "NoOp"

    done = refused(tmp_path, changed(write_export(tmp_path / "run"), change))
    assert done.code == UnsupportedExport.exit_code, done.err
    assert "no signature that a client can call" in done.err
    assert "signatures=" in done.err
    assert "--case" not in done.err


def test_a_frozen_graph_is_called_one(tmp_path: Path) -> None:
    export = write_export(tmp_path / "run")
    file = export / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    file.write_bytes(message.meta_graphs[0].graph_def.SerializeToString())
    done = refused(tmp_path, export)
    assert done.code == UnsupportedExport.exit_code, done.err
    assert "a frozen graph (a GraphDef), not a SavedModel" in done.err
    assert "wrap_function" in done.err
    assert "truncated" not in done.err


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("SentencepieceTokenizeOp", ("TensorFlow Text", "--engine docker, or --engine binary")),
        ("SimpleMLInferenceOpWithHandle", ("Decision Forests", "--engine docker")),
        (
            "Addons>Correlation",
            ("does not have the operations Addons>Correlation", "--image IMAGE"),
        ),
    ],
)
def test_the_embedded_engine_says_who_has_an_operation(
    tmp_path: Path, op: str, said: tuple[str, ...]
) -> None:
    done = refused(tmp_path, export_with(tmp_path / "run", op), "--engine", "embedded")
    assert done.code == LoadFailed.exit_code, done.err
    for part in (f"it lacks the operations {op}", *said):
        assert part in done.err
    assert "standard operations" not in done.err
    assert done.err.count("Op type not registered") == 0
    listed = command("--root", tmp_path / "serving", "history").out
    assert "half" not in listed


def with_vocabulary_at(export: Path, words: Path) -> Path:
    """Write an export whose table reads a file by a path that stands in the graph."""

    def change(meta_graph: Any) -> None:
        (asset,) = meta_graph.asset_file_def
        named = asset.tensor_info.name.split(":")[0]
        (const,) = (one for one in meta_graph.graph_def.node if one.name == named)
        const.attr["dtype"].type = types_pb2.DT_STRING
        const.attr["value"].tensor.string_val[:] = [str(words).encode()]
        del meta_graph.asset_file_def[:]

    return changed(write_export(export, assets={"words.txt": b"a\nb\n"}), change)


@pytest.mark.tf
def test_a_path_in_the_graph_is_named_and_stays_with_the_proof(tmp_path: Path) -> None:
    words = tmp_path / "elsewhere" / "words.txt"
    words.parent.mkdir()
    words.write_text("a\nb\n")
    export = with_vocabulary_at(tmp_path / "run", words)
    done = refused(tmp_path, export, "--engine", "embedded")
    assert done.code == UnsafeOperation.exit_code, done.err
    assert f"the graph names {words}, which is not a file of the export" in done.err
    demands = inspect_export(export).demands
    assert demands is not None
    (effect,) = demands.effects
    repo = new_repository(tmp_path / "serving")
    release = repo.promote(export, model="half", engine="embedded", allow_ops=[effect.op])
    assert release.proof is not None
    assert release.proof.notes == (f"it depends on files outside of the export: {words}",)
    assert repo.show_version("half@1").proofs[0].notes == release.proof.notes


def test_a_model_with_channels_first_is_shown_the_way_out() -> None:
    said = (
        "UNIMPLEMENTED: The Conv2D op currently only supports the NHWC tensor format on the CPU. The op was given "
        "the format: NCHW"
    )
    verdict = Verdict(signature="serve", api="Predict", outcome="failed", reason=said)
    report = SmokeReport(
        model="m", version=1, endpoint="h:1", signatures=("serve",), verdicts=(verdict,)
    )
    with pytest.raises(SmokeFailed) as failed:
        judge(report, strict=False)
    assert "--engine docker --gpus all" in (failed.value.hint or "")
