from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.savedmodel.server_fit import (
    _FILE,
    fit_server,
    graph_version,
    known_versions,
    op_state,
    servers_for,
)
from servingrepo.savedmodel.values import Demands
from servingrepo.testing.exports import write_export
from tests.savedmodel.graphs import call, changed, export_with, function, node


def demands(path: Path) -> Demands:
    found = inspect_export(path).demands
    assert found is not None
    return found


def test_the_lists_are_of_ten_servers_and_small() -> None:
    assert known_versions() == tuple((2, minor) for minor in range(12, 22))
    assert _FILE.stat().st_size < 100_000
    versions = [graph_version(one) or 0 for one in known_versions()]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize(
    ("op", "version", "state"),
    [
        ("MatMul", (2, 12), "runnable"),
        ("MatMul", (2, 21), "runnable"),
        ("BoostedTreesBucketize", (2, 19), "no kernel"),
        ("PyFunc", (2, 19), "no kernel"),
        ("CudnnRNN", (2, 19), "no kernel"),
        ("SentencepieceOp", (2, 19), "runnable"),
        ("SimpleMLInferenceOpWithHandle", (2, 19), "runnable"),
        ("AccumulateNV2", (2, 19), "runnable"),
        ("MyOwnOp", (2, 19), "absent"),
        ("MatMul", (2, 11), None),
        ("MatMul", (3, 0), None),
    ],
)
def test_op_state(op: str, version: tuple[int, int], state: str | None) -> None:
    assert op_state(op, version) == state


@pytest.mark.tf
def test_the_list_of_the_installed_release_is_what_it_says_itself() -> None:
    spec = importlib.util.find_spec("tensorflow")
    assert spec is not None
    assert spec.origin is not None
    script = Path(__file__).parents[2] / "tools" / "op_lists.py"
    done = subprocess.run(
        [sys.executable, script, "collect", Path(spec.origin).parents[1]],
        capture_output=True,
        check=True,
    )
    said: dict[str, Any] = msgspec.json.decode(done.stdout)
    major, minor = map(int, said["version"].split("."))
    if (major, minor) not in known_versions():
        pytest.skip(f"TensorFlow {said['version']} is not on file")
    assert graph_version((major, minor)) == said["graph_version"]
    # What is installed here may be built for GPUs, too; of 2.19 that build differs in the last two as well.
    others = {"AccumulateNV2", "SobolSample", "TfLiteSubgraphExecute"}
    for state in ("runnable", "registered"):
        wanted = "no kernel" if state == "registered" else state
        wrong = [
            op
            for op in said[state]
            if op_state(op, (major, minor)) != wanted and op not in others and "Gpu" not in op
        ]
        assert wrong == []


def test_what_an_export_of_ours_asks_for(tmp_path: Path) -> None:
    found = demands(write_export(tmp_path))
    assert found.ops == ("AddV2", "Const", "Mul", "Placeholder")
    assert (found.producer, found.min_consumer) == (1087, 12)
    assert (found.custom, found.function_ops) == ((), ())
    assert servers_for(found) == "TensorFlow Serving 2.12 to 2.21 has them all"


def test_operations_of_functions_count_where_the_graph_can_reach_them(tmp_path: Path) -> None:
    def change(meta_graph: Any) -> None:
        node(function(meta_graph, "used").node_def, "n", "MyOwnOp", [])
        node(function(meta_graph, "unused").node_def, "n", "NobodysOp", [])
        call(meta_graph.graph_def.node, "c", "used")
        node(meta_graph.graph_def.node, "d", "used", [])

    path = changed(write_export(tmp_path), change)
    found = demands(path)
    assert found.function_ops == ("MyOwnOp",)
    assert found.custom == ("MyOwnOp",)
    assert "StatefulPartitionedCall" in found.ops
    assert "used" not in found.ops
    assert servers_for(found).startswith("no TensorFlow Serving has them all")


def test_a_server_that_lacks_operations_is_told(tmp_path: Path) -> None:
    found = fit_server(demands(export_with(tmp_path, "MyOwnOp", "BoostedTreesBucketize")), (2, 19))
    assert found.checked
    assert found.absent == ("MyOwnOp",)
    assert found.without_kernel == ("BoostedTreesBucketize",)
    assert len(found.problems) == 2


def test_an_operation_that_came_later_is_in_the_later_servers_only() -> None:
    found = Demands(ops=("CollectiveAllToAllV2", "Add"))
    assert fit_server(found, (2, 12)).absent == ("CollectiveAllToAllV2",)
    said = "TensorFlow Serving 2.13 to 2.21 has them all, 2.12 does not"
    assert servers_for(found) == said


def test_a_reader_that_is_too_old_is_told() -> None:
    assert fit_server(Demands(min_consumer=2000), (2, 12)).too_old
    assert not fit_server(Demands(min_consumer=2000), (2, 20)).too_old


def test_an_unknown_server_is_not_checked() -> None:
    found = fit_server(Demands(ops=("MyOwnOp",)), (2, 99))
    assert (found.checked, found.problems) == (False, ())


@pytest.mark.corpus
def test_the_model_that_today_s_servers_cannot_run_lacks_a_kernel(corpus: Path) -> None:
    found = demands(corpus / "tfx" / "pusher_model_push" / "1584391735")
    assert fit_server(found, (2, 19)).without_kernel == ("BoostedTreesBucketize",)
