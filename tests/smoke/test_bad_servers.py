"""What a server does in the middle of many cases: the case is named, and the others run all the same."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import EndpointUnreachable, ServerDied, SmokeFailed
from servingrepo.protos import predict_pb2
from servingrepo.repository.proving import Trial, prove
from servingrepo.savedmodel.inspection import inspect_export
from servingrepo.servers.engines.embedded import EmbeddedEngine
from servingrepo.smoke.cases import Budget, SmokeCase
from servingrepo.smoke.expectations import read_expected
from servingrepo.smoke.files import Cases
from servingrepo.smoke.fitting import fit_case
from servingrepo.smoke.report import KEPT, SmokeReport, judge
from servingrepo.smoke.requests import Target, send_case
from servingrepo.smoke.run import run_cases, run_smoke
from servingrepo.smoke.tensors import make_tensor
from servingrepo.testing.exports import Served, saved_model, write_export
from servingrepo.testing.fake_server import VERSION, FakeServing, serve_fake
from tests.support import command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

GOOD = {"y": make_tensor("float32", [1], [2.5])}


def case(position: int, **more: Any) -> SmokeCase:
    return SmokeCase(file="c", position=position, data=[float(position)], **more)


class Scripted(FakeServing):
    """A server that does something else with the cases whose number is in `acts`."""

    def __init__(self) -> None:
        super().__init__(dict(saved_model().meta_graphs[0].signature_def))
        self.outputs = [GOOD]
        self.acts: dict[int, Any] = {}

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        number = int(request.inputs["x"].float_val[0])
        if number in self.acts:
            done = self.acts[number](context)
            if done is not None:
                return done
        return super().Predict(request, context)


@pytest.fixture
def fake() -> Scripted:
    return Scripted()


@pytest.fixture
def smoke(tmp_path: Path, fake: Scripted) -> Any:
    inspection = inspect_export(write_export(tmp_path / "1"))

    def smoke(cases: Iterable[SmokeCase], seconds: float = 20.0) -> SmokeReport:
        with serve_fake(fake) as client:
            return run_smoke(
                client,
                model="m",
                version=VERSION,
                inspection=inspection,
                cases=cases,
                deadline=Deadline.after(seconds),
            )

    return smoke


def outcomes(report: SmokeReport) -> list[str]:
    return [one.outcome for one in report.verdicts]


def test_a_refused_case_fails_and_the_others_run(smoke: Any, fake: Scripted) -> None:
    fake.acts[2] = lambda context: context.abort(grpc.StatusCode.INTERNAL, "odd")
    report = smoke([case(1), case(2), case(3)])
    assert outcomes(report) == ["passed", "failed", "passed"]
    assert str(report.failed[0]).endswith("(Predict, case c#2): INTERNAL: odd")


def test_a_broken_connection_fails_one_case(smoke: Any, fake: Scripted) -> None:
    fake.acts[2] = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "hiccup")
    report = smoke([case(1), case(2), case(3)])
    assert outcomes(report) == ["passed", "failed", "passed"]
    assert "case c#2" in str(report.failed[0])
    assert "hiccup" in report.failed[0].reason


def test_an_answer_of_garbage_fails_one_case(smoke: Any, fake: Scripted) -> None:
    garbage = predict_pb2.PredictResponse()
    garbage.model_spec.version.value = VERSION
    garbage.outputs["y"].dtype = 1
    garbage.outputs["y"].tensor_content = b"odd"
    garbage.outputs["y"].tensor_shape.dim.add(size=1)
    fake.acts[2] = lambda _: garbage
    report = smoke([case(1), case(2), case(3)])
    assert outcomes(report) == ["passed", "failed", "passed"]
    assert "output y cannot be read" in report.failed[0].reason


def test_no_time_is_said_once_for_the_rest(smoke: Any, fake: Scripted) -> None:
    fake.acts[2] = lambda _: time.sleep(3)
    report = smoke((case(number) for number in range(1, 100_000_000)), seconds=1.5)
    assert outcomes(report) == ["passed", "inconclusive", "inconclusive"]
    assert [one.source for one in report.inconclusive] == ["case c#2", "case c#3"]
    assert report.inconclusive[1].reason == "no time was left for this case and those after it"
    with pytest.raises(SmokeFailed, match="did not end: not every case was answered"):
        judge(report, strict=False)


@pytest.mark.parametrize(
    ("patience", "seconds", "outcome"), [(0.5, 20, "failed"), (20, 0.5, "inconclusive")]
)
def test_a_case_without_an_answer_fails_unless_time_ran_out(
    tmp_path: Path, fake: Scripted, patience: float, seconds: float, outcome: str
) -> None:
    fake.acts[2] = lambda _: time.sleep(2)
    fitted = fit_case(case(2), inspect_export(write_export(tmp_path / "1")))
    with serve_fake(fake) as client:
        target = Target(
            client=client,
            model="m",
            version=VERSION,
            deadline=Deadline.after(seconds),
            patience=patience,
        )
        result = send_case(target, case(2), fitted)
    assert (result.outcome, "did not answer" in result.reason) == (outcome, True)


def test_a_slow_signature_gets_no_varied_data(smoke: Any, fake: Scripted) -> None:
    fake.acts[1] = lambda _: time.sleep(1.2)
    (verdict,) = smoke([]).verdicts
    assert (verdict.outcome, verdict.requests, len(fake.requests)) == ("passed", 1, 1)


def test_an_expected_error_passes_and_no_other_does(smoke: Any, fake: Scripted) -> None:
    fake.acts[1] = lambda context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too short")
    wanted = {"code": "INVALID_ARGUMENT", "text": "too short"}
    expects = [
        read_expected({"error": one})
        for one in (wanted, {"code": "INTERNAL"}, {**wanted, "text": "too long"})
    ]
    report = smoke([*(case(1, expect=one) for one in expects), case(2, expect=expects[0])])
    # Made-up data follows, because no case wants an answer.
    assert outcomes(report) == ["passed", "failed", "failed", "failed", "passed"]
    assert report.failed[1].reason == (
        "expected INVALID_ARGUMENT: too long, got INVALID_ARGUMENT: too short"
    )
    assert report.failed[2].reason == "expected INVALID_ARGUMENT: too short, got an answer"


def test_an_expected_error_proves_no_signature(smoke: Any, fake: Scripted) -> None:
    fake.acts[5] = lambda context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
    expect = read_expected({"error": {"code": "INVALID_ARGUMENT"}})
    report = smoke([case(5, expect=expect)])
    assert [one.source for one in report.verdicts] == ["case c#5", "made-up"]


def test_conditions_and_nan_are_judged(smoke: Any, fake: Scripted) -> None:
    fake.outputs = [{"y": make_tensor("float32", [1], [float("nan")])}]
    allowed = read_expected({"outputs": {"y": {"finite": False, "shape": [None]}}})
    report = smoke([case(1), case(2, expect=allowed)])
    assert outcomes(report) == ["failed", "passed"]


def test_many_verdicts_are_counted_and_not_kept(smoke: Any, fake: Scripted) -> None:
    fake.acts[KEPT + 5] = lambda context: context.abort(grpc.StatusCode.INTERNAL, "odd")
    report = smoke((case(number) for number in range(1, KEPT + 11)), seconds=110)
    assert (report.count("passed"), len(report.passed)) == (KEPT + 9, KEPT)
    assert report.left_out == {"passed": 9}
    assert [one.source for one in report.failed] == [f"case c#{KEPT + 5}"]
    assert report.latency is not None
    assert report.latency.requests == KEPT + 8
    assert 0 < report.latency.p50_ms <= report.latency.p99_ms


@pytest.mark.parametrize(
    ("budget", "outcome"),
    [
        (Budget(p50_ms=10_000, p99_ms=10_000, document="d"), "passed"),
        (Budget(p50_ms=0.000_1, document="d"), "failed"),
        (Budget(p99_ms=0.000_1, document="d"), "failed"),
    ],
)
def test_a_budget_has_a_verdict_of_its_own(
    smoke: Any, fake: Scripted, budget: Budget, outcome: str
) -> None:
    report = smoke([case(1, budget=budget), case(2, budget=budget)])
    assert outcomes(report) == ["passed", "passed", outcome]
    verdict = report.verdicts[-1]
    assert (verdict.signature, verdict.source) == ("*", "case d")
    assert verdict.requests == (20 if budget.p99_ms is None else 100)
    assert "the budget" in verdict.reason


def test_a_budget_without_enough_answers_stops(smoke: Any, fake: Scripted) -> None:
    answered = iter(range(5))

    def act(context: Any) -> None:
        if next(answered, None) is None:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

    fake.acts[1] = act
    report = smoke([case(1, budget=Budget(p50_ms=10_000, document="d"))])
    assert outcomes(report) == ["passed", "inconclusive"]
    assert "there are 4 answers, and 20 are needed" in report.inconclusive[0].reason
    with pytest.raises(SmokeFailed):
        judge(report, strict=False)


class Killing(Cases, frozen=True, kw_only=True):
    """Cases of which the third kills the server, or stops it."""

    by: int = signal.SIGKILL

    def of(self, _: Path) -> Killing:
        return self

    def __iter__(self) -> Iterator[SmokeCase]:
        yield case(1)
        yield case(2, expect=read_expected({"outputs": {"y": {"equal": [0]}}}))
        for pid in servers():
            os.kill(pid, self.by)
        yield case(3)
        yield case(4)


def servers() -> list[int]:
    """Return the embedded servers that this process has started."""
    from pathlib import Path

    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                parent = int((one / "stat").read_text().rpartition(")")[2].split()[1])
                line = (one / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == os.getpid() and b"servingrepo.embedded" in line:
                found.append(int(one.name))
    return found


def proven(tmp_path: Path, cases: Cases, timeout: float) -> Any:
    export = write_export(tmp_path / "1")
    trial = Trial(
        model="m", version=1, export=export, inspection=inspect_export(export), cases=cases
    )
    return prove(EmbeddedEngine(), trial, timeout=timeout, time="")


@pytest.mark.tf
def test_a_server_that_dies_is_told_with_its_case(tmp_path: Path) -> None:
    with pytest.raises(ServerDied) as caught:
        proven(tmp_path, Killing(), 60)
    assert caught.value.problems[0] == "case c#3: the server went away"
    assert "case c#2" in caught.value.problems[1]
    assert caught.value.log
    assert servers() == []


@pytest.mark.tf
def test_a_server_that_hangs_leaves_cases_undecided(tmp_path: Path) -> None:
    proof = proven(tmp_path, Killing(by=signal.SIGSTOP), 15)
    report = proof.report
    assert [one.source for one in report.inconclusive] == ["case c#3", "case c#4"]
    with pytest.raises(SmokeFailed, match="failed") as caught:
        judge(report, strict=False)
    assert [one.split(", ")[1][:8] for one in caught.value.problems] == [
        "case c#2",
        "case c#3",
        "case c#4",
    ]
    assert servers() == []


@pytest.mark.tf
def test_every_bad_case_is_named_on_the_command_line(tmp_path: Path) -> None:
    write_export(tmp_path / "run", signatures=[Served(), Served(key="other")])
    listed: list[dict[str, Any]] = [
        {"name": "good", "inputs": {"x": [1.0]}},
        {"name": "unknown signature", "signature_name": "none", "inputs": [1.0]},
        {"name": "missing input", "inputs": {}},
        {"name": "wrong dtype", "inputs": {"x": ["text"]}},
        {"name": "ragged", "inputs": {"x": [[1.0], [1.0, 2.0]]}},
        {"name": "nan", "inputs": [1.0], "expect": {"outputs": {"y": {"equal": [float("nan")]}}}},
        {"name": "too large", "file": "huge.npz"},
        {"name": "cut", "file": "cut.tfrecord"},
        {"name": "raises", "inputs": [1.0], "expect": {"predicate": "own:raises"}},
    ]
    (tmp_path / "own.py").write_text("def raises(case, outputs): raise OSError('odd')\n")
    from tests.smoke.test_files import huge_npz, records

    huge_npz(tmp_path / "huge.npz")
    (tmp_path / "cut.tfrecord").write_bytes(records(b"")[:-1])
    (tmp_path / "c.json").write_text(json.dumps({"schema": 1, "cases": listed}))
    done = command(
        *("--json", "smoke", "./run", "--engine", "embedded", "--case", "c.json"), cwd=tmp_path
    )
    assert done.code == 70
    named = {
        one["source"]: one["outcome"]
        for one in done.json["error"]["details"]["proof"]["report"]["verdicts"]
    }
    assert {key.partition("(")[2].rstrip(")"): one for key, one in named.items()} == {
        "good": "passed",
        **{one["name"]: "failed" for one in listed[1:]},
        "": "passed",  # made-up data for the other signature
    }


def test_a_server_that_is_gone_is_told(smoke: Any, fake: Scripted) -> None:
    fake.acts[2] = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
    fake.acts[0] = fake.GetModelMetadata
    asked: list[int] = []

    def metadata(*given: Any) -> Any:
        asked.append(1)
        if len(asked) > 2:
            given[1].abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return fake.acts[0](*given)

    fake.GetModelMetadata = metadata  # type: ignore[method-assign] # a fake's method is its answer
    with pytest.raises(EndpointUnreachable) as caught:
        smoke([case(1), case(2), case(3)])
    assert caught.value.problems == ("case c#2: the server went away",)


def test_live_servers_are_held_against_conditions_too(tmp_path: Path, fake: Scripted) -> None:
    inspection = inspect_export(write_export(tmp_path / "1"))
    expects = [read_expected({"outputs": {"y": {"max": most}}}) for most in (3, 2)]
    cases = [case(number, expect=one) for number, one in enumerate(expects, start=1)]
    with serve_fake(fake) as client:
        verdicts = run_cases(
            client,
            model="m",
            version=VERSION,
            inspection=inspection,
            cases=cases,
            deadline=Deadline.after(20),
        )
    assert [one.outcome for one in verdicts] == ["passed", "failed"]
    assert len(fake.requests) == 2
