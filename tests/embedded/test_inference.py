"""Predict, Classify, Regress and MultiInference against a fake session: checks, their order, results."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.embedded.examples import classify, multi_inference, regress
from servingrepo.embedded.inference import Model, Options, predict
from servingrepo.embedded.runtime import Tensor
from servingrepo.embedded.status import Code, Status
from servingrepo.protos import (
    classification_pb2,
    inference_pb2,
    meta_graph_pb2,
    predict_pb2,
    regression_pb2,
    types_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

INVALID = Code.INVALID_ARGUMENT
FLOAT, STRING, INT32 = types_pb2.DT_FLOAT, types_pb2.DT_STRING, types_pb2.DT_INT32
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def floats(*values: float, shape: tuple[int, ...] | None = None) -> Tensor:
    data = struct.pack(f"<{len(values)}f", *values)
    return Tensor(FLOAT, (len(values),) if shape is None else shape, data)


def strings(*values: bytes, shape: tuple[int, ...]) -> Tensor:
    return Tensor(STRING, shape, strings=values)


class FakeSession:
    """Answers with prepared tensors by name and notes what it was fed."""

    def __init__(self, **outputs: Tensor) -> None:
        self.outputs = outputs
        self.fed: list[tuple[str, Any]] = []
        self.signatures: dict[str, Any] = {}

    def sign(
        self, key: str, inputs: Sequence[str], outputs: Sequence[str], method: str = "x"
    ) -> Any:
        signature = meta_graph_pb2.SignatureDef(method_name=method)
        for alias in inputs:
            signature.inputs[alias].name = f"{alias}:0"
        for alias in outputs:
            signature.outputs[alias].name = f"{alias}"
        self.signatures[key] = signature
        return signature

    def decode(self, proto: Any) -> Any | None:
        return None if proto.dtype == types_pb2.DT_INVALID else proto

    def run(
        self, feeds: Sequence[tuple[str, Any]], fetches: Sequence[str], *, timeout_ms: int
    ) -> list[Tensor] | Status:
        self.fed = list(feeds)
        assert timeout_ms == 7
        return [self.outputs[name] for name in fetches]

    def close(self) -> None: ...


def model(session: FakeSession, **options: bool) -> Model:
    return Model(session, Options(**options), version=3, timeout_ms=7)


def good(answer: Any) -> Any:
    assert not isinstance(answer, Status), answer
    return answer


def text(answer: Any) -> str:
    assert isinstance(answer, Status)
    return str(answer)


class TestPredict:
    @pytest.fixture
    def session(self) -> FakeSession:
        session = FakeSession(y=floats(1, 1, 1), z=floats(2))
        session.sign("serving_default", ["a", "b"], ["y", "z"])
        return session

    def request(self, *aliases: str, dtype: int = FLOAT, outputs: Sequence[str] = ()) -> Any:
        request = predict_pb2.PredictRequest(output_filter=outputs)
        request.model_spec.name = "m"
        for alias in aliases:
            request.inputs[alias].dtype = dtype
        return request

    def test_response_writes_every_element_and_says_who_answered(
        self, session: FakeSession
    ) -> None:
        answer = good(predict(model(session), self.request("a", "b")))
        assert list(answer.outputs["y"].float_val) == [1, 1, 1]
        assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [3]
        assert list(answer.outputs) == ["y", "z"] or sorted(answer.outputs) == ["y", "z"]
        assert answer.model_spec.version.value == 3
        assert answer.model_spec.signature_name == "serving_default"
        assert [name for name, _ in session.fed] == ["a:0", "b:0"]

    def test_tensor_content_if_asked_for(self, session: FakeSession) -> None:
        answer = good(predict(model(session, tensor_content=True), self.request("a", "b")))
        assert answer.outputs["z"].tensor_content == struct.pack("<f", 2)
        assert not answer.outputs["z"].float_val

    def test_unknown_signature(self, session: FakeSession) -> None:
        request = self.request("a", "b")
        request.model_spec.signature_name = "s"
        assert text(predict(model(session), request)) == (
            'FAILED_PRECONDITION: Serving signature key "s" not found.'
        )

    def test_method_name_is_checked_only_if_asked_for(self, session: FakeSession) -> None:
        assert text(predict(model(session, check_method_name=True), self.request())) == (
            "INTERNAL: Expected prediction signature method_name to be one of "
            "{tensorflow/serving/predict, tensorflow/serving/classify, "
            "tensorflow/serving/regress}. Was: x"
        )

    def test_count(self, session: FakeSession) -> None:
        assert text(predict(model(session), self.request("c"))) == (
            "INVALID_ARGUMENT: input size does not match signature: 1!=2 len({c}) != len({a,b}). "
            "Sent extra: {c}. Missing but required: {a,b}."
        )

    def test_right_count_wrong_name(self, session: FakeSession) -> None:
        assert text(predict(model(session), self.request("b", "c"))) == (
            "INVALID_ARGUMENT: Signature input alias: a(feed name: a:0) not found in request and no "
            "default value provided. Inputs expected to be in the request {b,c}, or default input "
            "alias set: "
        )

    def test_defaults_fill_in_and_do_not_excuse_wrong_names(self, session: FakeSession) -> None:
        for alias in ("a", "b"):
            session.signatures["serving_default"].defaults[alias].dtype = INT32
        predict(model(session), self.request("a"))
        assert [(name, feed.dtype) for name, feed in session.fed] == [
            ("a:0", FLOAT),
            ("b:0", INT32),
        ]
        assert text(predict(model(session), self.request("z"))) == (
            "INVALID_ARGUMENT: Inputs contains invalid name. Used request inputs: , request input: z"
        )

    def test_undecodable_tensor_comes_before_the_filter(self, session: FakeSession) -> None:
        request = self.request("a", "b", dtype=types_pb2.DT_INVALID, outputs=["nope"])
        assert text(predict(model(session), request)) == (
            "INVALID_ARGUMENT: tensor parsing error: a"
        )

    def test_output_filter(self, session: FakeSession) -> None:
        answer = good(predict(model(session), self.request("a", "b", outputs=["z"])))
        assert list(answer.outputs) == ["z"]
        assert text(predict(model(session), self.request("a", "b", outputs=["z", ""]))) == (
            "INVALID_ARGUMENT: output tensor alias not found in signature:  "
            "Outputs expected to be in the set {y,z}."
        )
        assert text(predict(model(session), self.request("a", "b", outputs=["z", "z"]))) == (
            "INVALID_ARGUMENT: duplicate output tensor alias: z"
        )


def examples(count: int, request: Any) -> Any:
    for i in range(count):
        one = request.input.example_list.examples.add()
        one.features.feature["x"].float_list.value.append(i)
    request.model_spec.name = "m"
    return request


class TestClassify:
    def request(self, count: int = 2) -> Any:
        return examples(count, classification_pb2.ClassificationRequest())

    def session(self, *outputs: str, **tensors: Tensor) -> FakeSession:
        session = FakeSession(**tensors)
        session.sign("serving_default", ["inputs"], outputs or list(tensors))
        return session

    def test_result_pairs_labels_and_scores(self) -> None:
        session = self.session(
            classes=strings(b"a", b"b", b"c", b"d", shape=(2, 2)),
            scores=floats(1, 2, 3, 4, shape=(2, 2)),
        )
        answer = good(classify(model(session), self.request()))
        rows = [[(c.label, c.score) for c in r.classes] for r in answer.result.classifications]
        assert rows == [[("a", 1.0), ("b", 2.0)], [("c", 3.0), ("d", 4.0)]]
        assert answer.model_spec.signature_name == "serving_default"

    def test_scores_alone_leave_labels_empty(self) -> None:
        answer = good(
            classify(model(self.session(scores=floats(1, 2, shape=(2, 1)))), self.request())
        )
        assert [
            (r.classes[0].label, r.classes[0].score) for r in answer.result.classifications
        ] == [
            ("", 1.0),
            ("", 2.0),
        ]

    def test_context_is_merged_before_the_example(self) -> None:
        request = classification_pb2.ClassificationRequest()
        part = request.input.example_list_with_context
        part.examples.add().features.feature["x"].float_list.value.append(1)
        part.context.features.feature["c"].float_list.value.append(2)
        session = self.session(scores=floats(1, shape=(1, 1)))
        classify(model(session), request)
        (value,) = session.fed[0][1].string_val
        assert value == part.context.SerializeToString() + part.examples[0].SerializeToString()

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            (
                {"scores": floats(1, 2)},
                "Expected Tensor shape: [batch_size num_classes] but got [2]",
            ),
            (
                {"scores": strings(b"a", b"b", shape=(2, 1))},
                "Expected scores Tensor of DT_FLOAT. Got: DT_STRING",
            ),
            (
                {"classes": floats(1, 2, shape=(2, 1))},
                "Expected classes Tensor of DT_STRING. Got: DT_FLOAT",
            ),
            (
                {"scores": floats(1, 2, 3, shape=(3, 1))},
                "Expected scores output batch size of 2. Got: 3",
            ),
            (
                {
                    "classes": strings(b"a", b"b", shape=(2, 1)),
                    "scores": floats(1, 2, 3, 4, shape=(2, 2)),
                },
                "Tensors class and score should match in dim_size(1). Got 1 vs. 2",
            ),
        ],
    )
    def test_wrong_outputs(self, tensors: dict[str, Tensor], message: str) -> None:
        answer = classify(model(self.session(**tensors)), self.request())
        assert answer == Status(INVALID, message)

    def test_structure(self) -> None:
        session = FakeSession()
        session.sign("two", ["inputs", "x"], ["scores"])
        session.sign("three", ["inputs"], ["a", "b", "scores"])
        session.sign("key", ["x"], ["scores"])
        session.sign("out", ["inputs"], ["y"])
        expected = {
            "none": "No signature was found with the name: none",
            "two": "Expected one input Tensor.",
            "three": "Expected one or two output Tensors, found 3",
            "key": "No classification inputs found in SignatureDef: inputs {",
            "out": "Expected classification signature outputs to contain at least one of "
            '"classes" or "scores". Signature was: inputs {',
        }
        for key, message in expected.items():
            request = self.request()
            request.model_spec.signature_name = key
            answer = classify(model(session), request)
            assert answer.code is INVALID
            assert answer.message.startswith(message)

    def test_method_name_check(self) -> None:
        session = self.session(scores=floats(1, shape=(1, 1)))
        assert text(classify(model(session, check_method_name=True), self.request(1))) == (
            "INVALID_ARGUMENT: Expected classification signature method_name to be "
            "tensorflow/serving/classify. Was: x"
        )

    def test_no_examples(self) -> None:
        session = self.session(scores=floats())
        assert classify(model(session), self.request(0)) == Status(INVALID, "Input is empty.")


class TestRegress:
    def answer(self, tensor: Tensor, count: int = 2) -> Any:
        session = FakeSession(outputs=tensor)
        session.sign("serving_default", ["inputs"], ["outputs"])
        return regress(model(session), examples(count, regression_pb2.RegressionRequest()))

    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_values(self, shape: tuple[int, ...]) -> None:
        answer = self.answer(floats(1, 2, shape=shape))
        assert [one.value for one in answer.result.regressions] == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("tensor", "message"),
        [
            (
                floats(1, 2, shape=(1, 2)),
                (
                    "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
                    "but got [1,2]"
                ),
            ),
            (floats(1), "Input batch size did not match output batch size: 2 vs. 1"),
            (
                strings(b"a", b"b", shape=(2,)),
                "Expected output Tensor of DT_FLOAT.  Got: DT_STRING",
            ),
        ],
    )
    def test_wrong_outputs(self, tensor: Tensor, message: str) -> None:
        assert self.answer(tensor) == Status(INVALID, message)


class TestMultiInference:
    @pytest.fixture
    def session(self) -> FakeSession:
        session = FakeSession(scores=floats(1, shape=(1, 1)), outputs=floats(2))
        session.sign("c", ["inputs"], ["scores"])
        session.sign("r", ["inputs"], ["outputs"])
        return session

    def request(self, *tasks: tuple[str, str, str]) -> Any:
        request = inference_pb2.MultiInferenceRequest()
        for name, signature, method in tasks:
            task = request.tasks.add(method_name=method)
            task.model_spec.name = name
            task.model_spec.signature_name = signature
        request.input.example_list.examples.add()
        return request

    def test_results_come_in_task_order(self, session: FakeSession) -> None:
        answer = good(
            multi_inference(model(session), self.request(("m", "r", REGRESS), ("m", "c", CLASSIFY)))
        )
        kinds = [one.WhichOneof("result") for one in answer.results]
        assert kinds == ["regression_result", "classification_result"]
        assert answer.results[0].regression_result.regressions[0].value == 2.0
        assert answer.results[1].model_spec.signature_name == "c"
        assert [name for name, _ in session.fed] == ["inputs:0"]

    @pytest.mark.parametrize(
        ("tasks", "expected"),
        [
            (
                [("m", "c", CLASSIFY), ("", "r", REGRESS)],
                "Found ModelSpec with an empty model name.",
            ),
            (
                [("m", "c", CLASSIFY), ("n", "r", REGRESS)],
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            ),
            (
                [("m", "c", CLASSIFY), ("m", "c", CLASSIFY)],
                "Duplicate evaluation of signature: c",
            ),
            ([("m", "z", CLASSIFY)], "Requested signature not found in model graph: z"),
            ([("m", "r", CLASSIFY)], "Expected classification signature outputs to contain"),
        ],
    )
    def test_refusals(
        self, session: FakeSession, tasks: list[tuple[str, str, str]], expected: str
    ) -> None:
        answer = multi_inference(model(session), self.request(*tasks))
        assert answer.code is INVALID
        assert answer.message.startswith(expected)

    @pytest.mark.parametrize("method", ["", "tensorflow/serving/predict"])
    def test_other_methods_are_unimplemented(self, session: FakeSession, method: str) -> None:
        answer = multi_inference(model(session), self.request(("m", "c", method)))
        assert answer == Status(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")
