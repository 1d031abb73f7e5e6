"""Verdicts: which answers speak for a version, which against it, and which say nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import BadCase, EndpointUnreachable, LoadFailed, ServerTimeout
from servingrepo.protos import example_pb2, predict_pb2
from servingrepo.savedmodel.inspection import Inspection, inspect_export
from servingrepo.servers.client import ServingClient
from servingrepo.servers.states import Endpoint
from servingrepo.smoke.cases import SmokeCase
from servingrepo.smoke.report import judge
from servingrepo.smoke.run import run_smoke
from servingrepo.smoke.tensors import make_tensor, read_tensor
from servingrepo.testing.exports import Served, saved_model, write_export
from servingrepo.testing.fake_server import VERSION, FakeServing, serve_fake

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.smoke.report import SmokeReport

GOOD = {"y": make_tensor("float32", [1], [2.5])}
CASE = SmokeCase(
    file="c.json", position=1, signature="serving_default", form="inputs", data=[1.0, 2.0]
)


class Bench:
    """An export on disk and a fake server of it."""

    def __init__(self, path: Path, served: Served) -> None:
        write_export(path, signatures=[served])
        self.inspection: Inspection = inspect_export(path)
        definitions = saved_model(signatures=[served]).meta_graphs[0].signature_def
        self.fake = FakeServing(dict(definitions))
        self.fake.outputs = [GOOD]

    def run(self, *cases: SmokeCase, seconds: float = 20.0) -> SmokeReport:
        with serve_fake(self.fake) as client:
            return run_smoke(
                client,
                model="m",
                version=VERSION,
                inspection=self.inspection,
                cases=cases,
                deadline=Deadline.after(seconds),
            )

    def verdict(self, *cases: SmokeCase) -> tuple[str, str]:
        (verdict,) = self.run(*cases).verdicts
        return verdict.outcome, verdict.reason


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "1", Served())


def test_every_smoke_request_names_the_version(
    bench: Bench,
) -> None:
    report = bench.run()
    assert [one.outcome for one in report.verdicts] == ["passed"]
    assert report.verdicts[0].milliseconds > 0
    assert report.unproven == ()
    assert report.verdicts[0].requests == len(bench.fake.requests) == 3
    for request in bench.fake.requests:
        assert request.model_spec.version.value == VERSION
        assert request.model_spec.signature_name == "serving_default"
    sent = [read_tensor(one.inputs["x"]).values for one in bench.fake.requests]
    assert [len(one) for one in sent] == [1, 2, 8]
    assert sent[0] == (1.0,)
    assert len(set(sent[2])) > 2
    bench.run()
    assert [read_tensor(one.inputs["x"]).values for one in bench.fake.requests[3:]] == sent


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({"z": GOOD["y"]}, "output y is missing; output z was never declared"),
        (
            {"y": make_tensor("float64", [1], [1.0])},
            "output y is float64, declared float32",
        ),
        (
            {"y": make_tensor("float32", [1, 1], [1.0])},
            "output y has the shape [1, 1], declared [?]",
        ),
    ],
)
def test_run_smoke_of_an_answer_that_is_not_as_declared_fails(
    bench: Bench, outputs: dict[str, Any], reason: str
) -> None:
    bench.fake.outputs = [outputs]
    assert bench.verdict() == ("failed", reason)
    assert len(bench.fake.requests) == 1


def test_run_smoke_of_an_answer_from_another_version_fails(bench: Bench) -> None:
    bench.fake.version = 6
    report = bench.run()
    assert [one.outcome for one in report.verdicts] == ["failed", "failed"]
    assert all("version 6 answered instead of 7" in (one.reason or "") for one in report.verdicts)


def test_run_smoke_of_nan_for_ones_but_not_for_zeros_passes(bench: Bench) -> None:
    bench.fake.outputs = [{"y": make_tensor("float32", [1], [math.nan])}, GOOD]
    assert bench.verdict() == ("passed", "")
    sent = [read_tensor(one.inputs["x"]).values for one in bench.fake.requests]
    assert sent[:2] == [(1.0,), (0.0,)]


def test_a_model_that_refuses_varied_data_passes_with_a_note(bench: Bench) -> None:
    bench.fake.outputs = [GOOD, {"y": make_tensor("float32", [1, 1], [1.0])}]
    (verdict,) = bench.run().verdicts
    assert verdict.outcome == "passed"
    assert verdict.reason == (
        "2 varied rows got no right answer: output y has the shape [1, 1], declared [?]"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_finite_answer_to_made_up_data_is_inconclusive(bench: Bench, value: float) -> None:
    bench.fake.outputs = [{"y": make_tensor("float32", [1], [value])}]
    assert bench.verdict() == ("inconclusive", f"output y is not finite: {value}")


def test_no_finite_answer_to_user_data_fails(bench: Bench) -> None:
    bench.fake.outputs = [{"y": make_tensor("float32", [2], [1.0, math.nan])}]
    assert bench.verdict(CASE)[0] == "failed"


@pytest.mark.parametrize(
    ("code", "text", "outcome"),
    [
        ("INVALID_ARGUMENT", "Matrix size-incompatible: In[0]: [1,3]", "inconclusive"),
        ("INVALID_ARGUMENT", "Expects arg[0] to be string but float is provided", "failed"),
        ("INVALID_ARGUMENT", "No OpKernel was registered to support Op 'X'", "failed"),
        ("INVALID_ARGUMENT", "You must feed a value for placeholder tensor 'q'", "failed"),
        ("OUT_OF_RANGE", "indices[0] = 1 is not in [0, 1)", "inconclusive"),
        ("FAILED_PRECONDITION", "Attempting to use uninitialized value a", "failed"),
        ("FAILED_PRECONDITION", "Could not find variable dense/kernel.", "failed"),
        ("FAILED_PRECONDITION", "Table not initialized.", "failed"),
        ("NOT_FOUND", "Servable not found for request: Specific(m, 7)", "failed"),
        ("NOT_FOUND", "1; No such file or directory", "inconclusive"),
        ("UNIMPLEMENTED", "not on a CPU", "failed"),
        ("INTERNAL", "something broke", "failed"),
        ("RESOURCE_EXHAUSTED", "OOM when allocating tensor", "inconclusive"),
        ("DATA_LOSS", "cannot parse", "inconclusive"),
    ],
)
def test_a_refusal_fails_if_no_data_could_help(
    bench: Bench, code: str, text: str, outcome: str
) -> None:
    bench.fake.error = (grpc.StatusCode[code], text)
    assert bench.verdict() == (outcome, f"{code}: {text}")


def test_run_smoke_of_a_refusal_of_a_users_data_fails(bench: Bench) -> None:
    bench.fake.error = (grpc.StatusCode.INVALID_ARGUMENT, "no")
    (verdict,) = bench.run(CASE).verdicts
    assert (verdict.outcome, verdict.source) == ("failed", "case c.json#1")


def test_run_smoke_of_a_refusal_without_any_data_fails(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "1", Served())
    definition = bench.fake.definitions["serving_default"]
    del definition.inputs["x"]
    message = saved_model()
    message.meta_graphs[0].signature_def["serving_default"].CopyFrom(definition)
    (tmp_path / "1" / "saved_model.pb").write_bytes(message.SerializeToString())
    bench.inspection = inspect_export(tmp_path / "1")
    bench.fake.error = (grpc.StatusCode.INVALID_ARGUMENT, "never")
    assert bench.verdict() == ("failed", "INVALID_ARGUMENT: never")


def test_run_smoke_of_other_signatures_than_on_disk_fails_and_says_which(bench: Bench) -> None:
    definition = bench.fake.definitions["serving_default"]
    bench.fake.definitions["more"] = type(definition).FromString(definition.SerializeToString())
    definition.method_name = "tensorflow/serving/regress"
    report = bench.run()
    assert [(one.signature, one.reason) for one in report.failed] == [
        ("more", "it is served, but not on disk"),
        ("serving_default", "served and on disk it has different method names"),
    ]


def test_run_smoke_waits_until_the_version_is_available(bench: Bench) -> None:
    bench.fake.states = [
        ("END", 0, ""),
        ("NOT_FOUND", 5, "no"),
        ("START", 0, ""),
        ("LOADING", 0, ""),
        ("AVAILABLE", 0, ""),
    ]
    assert bench.verdict()[0] == "passed"


def test_a_failed_load_says_the_server_s_words(
    bench: Bench,
) -> None:
    bench.fake.states = [("LOADING", 0, ""), ("END", 3, "No OpKernel was registered for Foo")]
    with pytest.raises(LoadFailed, match="No OpKernel was registered for Foo"):
        bench.run()
    assert bench.fake.requests == []


def test_a_version_that_never_comes_times_out(
    bench: Bench,
) -> None:
    bench.fake.states = [("LOADING", 0, "")]
    with pytest.raises(ServerTimeout, match="its state is LOADING"):
        bench.run(seconds=0.3)


def test_run_smoke_without_a_server_says_that_nothing_answers(bench: Bench) -> None:
    with (
        ServingClient(Endpoint("127.0.0.1", 1)) as client,
        pytest.raises(EndpointUnreachable),
    ):
        run_smoke(
            client,
            model="m",
            version=VERSION,
            inspection=bench.inspection,
            deadline=Deadline.after(5.0),
        )


def test_a_case_that_does_not_fit_fails_alone(bench: Bench) -> None:
    wrong = SmokeCase(file="c.json", position=2, signature="other", form="inputs", data=[1.0])
    report = bench.run(wrong, CASE)
    assert [(one.outcome, one.source, one.requests) for one in report.verdicts] == [
        ("failed", "case c.json#2", 0),
        ("passed", "case c.json#1", 1),
    ]
    assert report.failed[0].reason == "there is no signature 'other'; there is serving_default"
    assert len(bench.fake.requests) == 1
    with pytest.raises(BadCase, match="1 smoke cases do not fit m version 7"):
        judge(report, strict=False)


@pytest.mark.parametrize(
    ("expected", "outcome"),
    [([2.5], "passed"), ([2.5001], "passed"), ([2.6], "failed"), ([[2.5]], "failed")],
)
def test_run_smoke_of_a_case_that_expects_something_compares_it(
    bench: Bench, expected: Any, outcome: str
) -> None:
    case = SmokeCase(
        file="c.json",
        position=1,
        signature="serving_default",
        form="inputs",
        data=[1.0],
        expected={"y": expected},
        expected_form="outputs",
    )
    assert bench.verdict(case)[0] == outcome


@pytest.fixture
def classifier(tmp_path: Path) -> Bench:
    served = Served(key="c", api="classify", feed="parse_example_v2")
    bench = Bench(tmp_path / "1", served)
    bench.fake.scores = [[0.5]]
    bench.fake.outputs = [{"scores": make_tensor("float32", [1, 1], [2.5])}]
    return bench


def test_run_smoke_of_a_classifier_sends_a_real_example_through_classify(
    classifier: Bench,
) -> None:
    (verdict,) = classifier.run().verdicts
    assert (verdict.api, verdict.outcome) == ("Classify", "passed")
    (example,) = classifier.fake.requests[0].input.example_list.examples
    assert example.features.feature["x"].float_list.value == [1.0]


def test_a_classifier_that_refuses_classify_gets_predict(
    classifier: Bench,
) -> None:
    classifier.fake.errors_of_examples = (grpc.StatusCode.INVALID_ARGUMENT, "Expected one input")
    (verdict,) = classifier.run().verdicts
    assert (verdict.api, verdict.outcome) == ("Predict", "passed")
    assert verdict.reason == "Classify does not work: INVALID_ARGUMENT: Expected one input"
    predicted = next(
        one for one in classifier.fake.requests if isinstance(one, predict_pb2.PredictRequest)
    )
    (sent,) = read_tensor(predicted.inputs["inputs"]).values
    assert example_pb2.Example.FromString(sent).features.feature["x"].float_list.value == [1.0]


def test_a_classifier_with_too_few_answers_fails(
    classifier: Bench,
) -> None:
    classifier.fake.scores = []
    (verdict,) = classifier.run().verdicts
    assert (verdict.api, verdict.outcome) == ("Classify", "failed")
    assert verdict.reason == "0 classifications for 1 examples"


def test_run_smoke_of_a_classifier_that_neither_way_works_says_both_reasons(
    classifier: Bench,
) -> None:
    classifier.fake.errors_of_examples = (grpc.StatusCode.INVALID_ARGUMENT, "one")
    classifier.fake.error = (grpc.StatusCode.FAILED_PRECONDITION, "two")
    (verdict,) = classifier.run().verdicts
    assert (verdict.api, verdict.outcome) == ("Predict", "failed")
    assert "two" in verdict.reason
    assert "one" in verdict.reason


def test_run_smoke_of_a_regressor_with_nan_is_inconclusive(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "1", Served(key="r", api="regress", feed="parse_example"))
    bench.fake.values = [math.nan]
    bench.fake.outputs = [{"outputs": make_tensor("float32", [1, 1], [math.nan])}]
    assert bench.verdict()[0] == "inconclusive"
