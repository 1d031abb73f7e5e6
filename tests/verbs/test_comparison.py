"""Candidates that differ from the live version by a known amount, on a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import DriftInconclusive, SmokeFailed
from servingrepo.fleet.rules import Rules
from servingrepo.protos import types_pb2
from servingrepo.savedmodel.signatures import INIT_OP_KEY
from servingrepo.testing.exports import Served
from tests.savedmodel.graphs import changed, node
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.smoke.drift import Drift

pytestmark = pytest.mark.tf

ROWS = 40


def cases(path: Path, *, rows: int = ROWS, **more: Any) -> Path:
    """Write a case of many rows: 0, 1, 0, 1 and so on."""
    case = {"instances": [{"x": float(at % 2)} for at in range(rows)], **more}
    path.write_text(json.dumps({"schema": 1, "cases": [case]}))
    return path


def words(*vocabulary: bytes) -> Callable[[Any], None]:
    """Make a model's output the word that x is the index of."""

    def change(meta_graph: Any) -> None:
        nodes = meta_graph.graph_def.node
        table = node(nodes, "words", "Const", [])
        table.attr["dtype"].type = types_pb2.DT_STRING
        table.attr["value"].tensor.dtype = types_pb2.DT_STRING
        table.attr["value"].tensor.tensor_shape.dim.add(size=len(vocabulary))
        table.attr["value"].tensor.string_val.extend(vocabulary)
        axis = node(nodes, "axis", "Const", [])
        axis.attr["dtype"].type = types_pb2.DT_INT32
        axis.attr["value"].tensor.dtype = types_pb2.DT_INT32
        axis.attr["value"].tensor.tensor_shape.SetInParent()
        axis.attr["value"].tensor.int_val.append(0)
        signature = meta_graph.signature_def["serving_default"]
        cast = node(nodes, "index", "Cast", [signature.inputs["x"].name])
        cast.attr["SrcT"].type = types_pb2.DT_FLOAT
        cast.attr["DstT"].type = types_pb2.DT_INT32
        chosen = node(nodes, "chosen", "GatherV2", ["words", "index", "axis"])
        chosen.attr["Tparams"].type = types_pb2.DT_STRING
        chosen.attr["Tindices"].type = types_pb2.DT_INT32
        chosen.attr["Taxis"].type = types_pb2.DT_INT32
        signature.outputs["y"].name = "chosen:0"
        signature.outputs["y"].dtype = types_pb2.DT_STRING

    return change


def dropout(meta_graph: Any) -> None:
    """Add noise to a model's output, as a dropout does that was left on."""
    nodes = meta_graph.graph_def.node
    output = meta_graph.signature_def["serving_default"].outputs["y"]
    shape = node(nodes, "shape_of_y", "Shape", [output.name])
    shape.attr["T"].type = types_pb2.DT_FLOAT
    shape.attr["out_type"].type = types_pb2.DT_INT32
    noise = node(nodes, "noise", "RandomUniform", ["shape_of_y"])
    noise.attr["T"].type = types_pb2.DT_INT32
    noise.attr["dtype"].type = types_pb2.DT_FLOAT
    total = node(nodes, "noisy_y", "AddV2", [output.name, "noise"])
    total.attr["T"].type = types_pb2.DT_FLOAT
    output.name = "noisy_y:0"


def run(path: Path, *, offset: float = 2.0, change: Callable[[Any], None] | None = None) -> Path:
    """Leave a run, whose payload makes it another content than every other run."""
    made = run_with(path, offset=offset)
    if change is not None:
        changed(made / "saved_model", change)
    (made / "saved_model" / "assets.extra").mkdir()
    (made / "saved_model" / "assets.extra" / "name").write_text(path.name)
    return made


@pytest.fixture
def live(tmp_path: Path) -> OpenRepository:
    """A repository whose model `m` serves version 1: 0.5 x + 2."""
    repo = new_repository(tmp_path / "serving")
    repo.promote(run(tmp_path / "live"), model="m", smoke=False)
    return repo


def compared(repo: OpenRepository, candidate: Path, case: Path, **options: Any) -> Drift:
    done = repo.promote(candidate, model="m", engine="embedded", cases=[case], **options)
    assert done.proof is not None
    assert done.proof.drift is not None
    return done.proof.drift


def test_another_weight_is_measured_without_a_budget(live: OpenRepository, tmp_path: Path) -> None:
    found = compared(live, run(tmp_path / "a", offset=2.25), cases(tmp_path / "c.json"))
    (drift,) = found.outputs
    assert (found.live, found.cases, drift.rows) == (1, 1, ROWS)
    assert (drift.largest, drift.mean) == (0.25, 0.25)
    assert (drift.noise_largest, drift.noise_mean) == (0.0, 0.0)
    assert (found.verdicts, found.why) == ((), "")
    record = live.show_version("m@2")
    assert record.proofs[-1].drift == found


def test_another_weight_fails_a_budget_with_its_figure(
    live: OpenRepository, tmp_path: Path
) -> None:
    case = cases(tmp_path / "c.json", rows=1)
    with pytest.raises(SmokeFailed) as failed:
        compared(live, run(tmp_path / "a", offset=2.25), case, max_diff=0.1)
    (problem,) = failed.value.problems
    assert "the largest difference is 0.25, allowed are 0.1" in problem
    assert f"case {case}#1, row 0" in problem
    assert not (tmp_path / "serving/models/m/2").exists()
    assert compared(live, run(tmp_path / "b", offset=2.25), case, max_diff=0.3).live == 1


def test_the_same_model_keeps_to_any_budget(live: OpenRepository, tmp_path: Path) -> None:
    found = compared(live, run(tmp_path / "a"), cases(tmp_path / "c.json"), max_diff=0.0)
    assert [one.outcome for one in found.verdicts] == ["passed"]


def test_a_swapped_vocabulary_fails_the_churn(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run(tmp_path / "live", change=words(b"cat", b"dog")), model="m", smoke=False)
    case = cases(tmp_path / "c.json", labels={"y": ["cat", "dog"] * (ROWS // 2)})
    with pytest.raises(SmokeFailed) as failed:
        compared(repo, run(tmp_path / "a", change=words(b"dog", b"cat")), case, max_churn="1%")
    assert "40 of 40 rows change, 100.00%" in failed.value.problems[0]
    found = compared(repo, run(tmp_path / "b", change=words(b"cat", b"cow")), case)
    (drift,) = found.outputs
    assert (drift.labelled, drift.changed, drift.churn) == (ROWS, ROWS // 2, 0.5)
    (right,) = found.accuracy
    assert (right.rows, right.live, right.candidate) == (ROWS, ROWS, ROWS // 2)
    assert right.p_value < 0.001


def test_too_few_rows_stop_unless_that_is_allowed(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run(tmp_path / "live", change=words(b"cat", b"dog")), model="m", smoke=False)
    case, same = cases(tmp_path / "c.json"), run(tmp_path / "a", change=words(b"cat", b"dog"))
    with pytest.raises(DriftInconclusive, match="do not decide") as undecided:
        compared(repo, same, case, max_churn=0.01)
    assert "368 decide if none changes" in undecided.value.problems[0]
    found = compared(repo, same, case, max_churn=0.01, rules=Rules(allow_inconclusive=True))
    assert [one.outcome for one in found.verdicts] == ["inconclusive"]


def test_dropout_left_on_is_noise_and_no_failure(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run(tmp_path / "live", change=dropout), model="m", smoke=False)
    case = cases(tmp_path / "c.json")
    with pytest.raises(DriftInconclusive) as undecided:
        compared(repo, run(tmp_path / "a", change=dropout), case, max_diff=0.01)
    assert "live differs from itself by" in undecided.value.problems[0]
    with pytest.raises(SmokeFailed):
        compared(repo, run(tmp_path / "b", offset=9.0, change=dropout), case, max_diff=2.0)


def test_a_live_version_that_does_not_load_is_said(live: OpenRepository, tmp_path: Path) -> None:
    graph = tmp_path / "serving/models/m/1/saved_model.pb"
    content = graph.read_bytes()
    graph.chmod(0o644)
    graph.write_bytes(content.replace(b"AddV2", b"NoSuc"))
    case = cases(tmp_path / "c.json")
    found = compared(live, run(tmp_path / "a"), case, serve=False)
    assert found.why.startswith("one server does not serve both: ")
    assert "NoSuc" in found.why
    assert (found.live, found.cases, found.outputs) == (1, 0, ())
    with pytest.raises(DriftInconclusive) as undecided:
        compared(live, run(tmp_path / "b"), case, max_diff=0.1)
    assert "nothing was compared: one server does not serve both" in undecided.value.problems[0]


def test_nothing_is_compared_unasked(live: OpenRepository, tmp_path: Path) -> None:
    without = live.promote(run(tmp_path / "a"), model="m", engine="embedded", serve=False)
    assert without.proof is not None
    assert without.proof.drift is None
    case = cases(tmp_path / "c.json")
    alone = live.promote(
        run(tmp_path / "b"), model="m", engine="embedded", cases=[case], against="none", serve=False
    )
    assert alone.proof is not None
    assert alone.proof.drift is None
    with pytest.raises(DriftInconclusive) as undecided:
        live.promote(run(tmp_path / "c"), model="m", engine="embedded", max_diff=0.1)
    assert "there are no cases" in undecided.value.problems[0]
    first = live.promote(run(tmp_path / "d"), model="new", engine="embedded", max_diff=0.1)
    assert first.served, "nothing is served that it could differ from"


def test_diff_compares_answers_where_there_are_cases(live: OpenRepository, tmp_path: Path) -> None:
    other, case = run(tmp_path / "a", offset=2.25), cases(tmp_path / "c.json")
    live.promote(other, model="m", smoke=False)
    assert live.diff("m@1", "m@2").drift is None
    for new in ("m@2", other):
        found = live.diff("m@1", new, cases=[case], engine="embedded").drift
        assert found is not None
        (drift,) = found.outputs
        assert (drift.largest, drift.noise_largest) == (0.25, 0.0)
    done = command(
        "diff", f"{tmp_path / 'live'}/", f"{other}/", "--case", case, "--engine", "embedded"
    )
    assert done.code == 0, done.err
    assert "largest difference 0.25, mean 0.25 (live from itself: 0, 0)" in done.out


def test_latency_is_measured_in_turns(live: OpenRepository, tmp_path: Path) -> None:
    one = {"instances": [{"x": 1.0}]}
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"schema": 1, "cases": [one] * 30}))
    found = compared(live, run(tmp_path / "a"), path)
    for latency in (found.live_latency, found.latency):
        assert latency is not None
        assert latency.requests == 29, "the first answer does not count"
        assert 0 < latency.p50_ms <= latency.p99_ms


def test_what_only_one_version_has_is_named(live: OpenRepository, tmp_path: Path) -> None:
    both = [Served(), Served(key="other")]
    done = live.promote(
        run_with(tmp_path / "a", offset=2.0, signatures=both),
        model="m",
        engine="embedded",
        cases=[cases(tmp_path / "c.json"), cases(tmp_path / "d.json", signature_name="other")],
    )
    assert done.proof is not None
    found = done.proof.drift
    assert found is not None
    assert found.one_sided == ("signature other: only the candidate has it",)
    assert (found.cases, found.left_count) == (1, 1)
    assert "live: it does not fit: there is no signature 'other'" in found.left[0]


def test_a_version_that_keeps_state_is_said(live: OpenRepository, tmp_path: Path) -> None:
    def counter(meta_graph: Any) -> None:
        nodes = meta_graph.graph_def.node
        output = meta_graph.signature_def["serving_default"].outputs["y"]
        variable = node(nodes, "seen", "VariableV2", [])
        variable.attr["dtype"].type = types_pb2.DT_FLOAT
        variable.attr["shape"].shape.SetInParent()
        for name, op, inputs in (
            ("start", "Assign", ["seen", "offset"]),
            ("count", "AssignAdd", ["seen", "slope"]),
        ):
            node(nodes, name, op, inputs).attr["T"].type = types_pb2.DT_FLOAT
        node(nodes, "init", "NoOp", ["^start"])
        meta_graph.signature_def[INIT_OP_KEY].outputs[INIT_OP_KEY].name = "init"
        total = node(nodes, "counted", "AddV2", [output.name, "count"])
        total.attr["T"].type = types_pb2.DT_FLOAT
        output.name = "counted:0"

    case = cases(tmp_path / "c.json")
    found = compared(live, run(tmp_path / "a", change=counter), case)
    assert [one for one in found.notes if "the candidate keeps state" in one and "AssignAdd" in one]
