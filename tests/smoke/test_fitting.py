"""Cases become requests by the rules of TensorFlow Serving's REST API, or are refused with all problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.errors import BadCase
from servingrepo.protos import example_pb2
from servingrepo.savedmodel.inspection import Inspection
from servingrepo.savedmodel.values import ExampleInput, Feature, Signature, TensorSpec
from servingrepo.smoke.cases import SmokeCase
from servingrepo.smoke.fitting import Misfit, check_cases, check_expected, fit_case
from servingrepo.smoke.tensors import Tensor, read_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def spec(alias: str, dtype: str, *, has_default: bool = False) -> TensorSpec:
    return TensorSpec(
        alias=alias, dtype=dtype, shape=None, tensor_name=f"{alias}:0", has_default=has_default
    )


def model(
    *inputs: TensorSpec,
    method: str = "tensorflow/serving/predict",
    features: Sequence[Feature] = (),
) -> Inspection:
    signature = Signature(key="serving_default", method_name=method, inputs=inputs, outputs=())
    examples = ExampleInput(
        signature="serving_default", alias="inputs", single=False, features=tuple(features)
    )
    return Inspection(path="run", signatures=(signature,), examples=(examples,) if features else ())


def case(form: Any, data: Any, **more: Any) -> SmokeCase:
    return SmokeCase(
        file="c.json", position=1, signature="serving_default", form=form, data=data, **more
    )


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("instances", [[1, 2], [3, 4]]),
        ("instances", [{"x": [1, 2]}, {"x": [3, 4]}]),
        ("inputs", [[1, 2], [3, 4]]),
        ("inputs", {"x": [[1, 2], [3, 4]]}),
    ],
)
def test_fit_case_in_all_forms_of_one_input_gives_the_same_tensor(form: str, data: Any) -> None:
    fitted = fit_case(case(form, data), model(spec("x", "float32")))
    assert fitted.api == "Predict"
    assert read_tensor(fitted.inputs["x"]) == Tensor(
        dtype="float32", shape=(2, 2), values=(1.0, 2.0, 3.0, 4.0)
    )


def test_fit_case_of_several_inputs_by_row_stacks_each() -> None:
    data = [{"a": 1, "b": "x"}, {"a": 2, "b": {"b64": "eQ=="}}]
    fitted = fit_case(case("instances", data), model(spec("a", "int64"), spec("b", "string")))
    assert read_tensor(fitted.inputs["a"]).values == (1, 2)
    assert read_tensor(fitted.inputs["b"]).values == (b"x", b"y")


def test_bytes_without_a_name_are_a_value() -> None:
    for form, data, shape in (
        ("instances", [{"b64": "eQ=="}], (1,)),
        ("inputs", {"b64": "eQ=="}, ()),
    ):
        fitted = fit_case(case(form, data), model(spec("x", "string")))
        assert read_tensor(fitted.inputs["x"]) == Tensor(
            dtype="string", shape=shape, values=(b"y",)
        )


def test_fit_case_by_column_may_leave_out_what_has_a_default() -> None:
    inspection = model(spec("a", "int64"), spec("b", "int64", has_default=True))
    assert set(fit_case(case("inputs", {"a": 1}), inspection).inputs) == {"a"}


@pytest.mark.parametrize(
    ("form", "data", "problems"),
    [
        ("inputs", {"a": 1}, ["inputs: input b is missing"]),
        (
            "inputs",
            {"a": 1, "c": 2},
            ["inputs: input b is missing", "inputs: the signature has no input c"],
        ),
        ("inputs", [1], ["inputs must be an object with all inputs by name"]),
        ("instances", [1], ["instances[0] must be an object with all inputs by name"]),
        (
            "instances",
            [{"a": 1, "b": 1}, {"a": 1}, {"b": 1}],
            ["instances[1]: input b is missing", "instances[2]: input a is missing"],
        ),
        (
            "inputs",
            {"a": 1.5, "b": "x"},
            ["input a: 1.5 is no int64", "input b: 'x' is no float32"],
        ),
        ("inputs", {"a": True, "b": 1}, ["input a: True is no int64"]),
        ("inputs", {"a": 2**70, "b": 1}, ["input a: a value is no int64"]),
        ("inputs", {"a": [[1], [1, 2]], "b": 1}, ["input a: lists of different lengths: 1, 2"]),
        ("inputs", {"a": [1, [2]], "b": 1}, ["input a: lists and plain values are mixed"]),
        ("inputs", {"a": 1, "b": {"b64": "!"}}, ["input b: {'b64': '!'} is no float32"]),
    ],
)
def test_fit_case_that_does_not_fit_says_everything_that_is_wrong(
    form: str, data: Any, problems: list[str]
) -> None:
    with pytest.raises(Misfit) as caught:
        fit_case(case(form, data), model(spec("a", "int64"), spec("b", "float32")))
    assert caught.value.problems == problems


X = Feature(key="x", dtype="float32", kind="dense", shape=(1,), has_default=False)
WORD = Feature(key="word", dtype="string", kind="sparse", shape=None, has_default=True)


def test_fit_case_of_examples_follows_the_dtypes_of_the_graph() -> None:
    inspection = model(
        spec("inputs", "string"), method="tensorflow/serving/regress", features=[X, WORD]
    )
    data = [{"x": 1, "more": [1, 2]}, {"x": [2.5], "word": ["a", {"b64": "Yg=="}], "f": [1, 0.5]}]
    fitted = fit_case(case("examples", data, context={"word": "c"}), inspection)
    assert fitted.api == "Regress"
    first, second = (one.features.feature for one in fitted.examples)
    assert first["x"].float_list.value == [1.0]
    assert first["more"].int64_list.value == [1, 2]
    assert second["word"].bytes_list.value == [b"a", b"b"]
    assert second["f"].float_list.value == [1.0, 0.5]
    assert fitted.context.features.feature["word"].bytes_list.value == [b"c"]


def test_examples_for_predict_begin_with_the_context() -> None:
    inspection = model(spec("inputs", "string"), features=[X, WORD])
    fitted = fit_case(case("examples", [{"word": "w"}, {"x": 3}], context={"x": 2}), inspection)
    assert fitted.api == "Predict"
    tensor = read_tensor(fitted.inputs["inputs"])
    assert tensor.shape == (2,)
    parsed = [example_pb2.Example.FromString(one).features.feature for one in tensor.values]
    assert parsed[0]["x"].float_list.value == [2.0]
    assert parsed[1]["x"].float_list.value == [3.0]


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        ([{"word": "a"}], ["examples[0]: feature x is missing"]),
        ([{"x": "a"}], ["examples[0]: feature x: 'a' is no float32"]),
        ([3], ["examples[0] must be an object of features"]),
        ([{"x": 1, "y": ["a", 1]}], ["examples[0]: feature y: 1 is no string"]),
        ([{"x": 1, "y": 2**70}], ["examples[0]: feature y: a value is no int64"]),
    ],
)
def test_fit_case_of_examples_that_do_not_fit_says_which_feature(
    data: Any, problems: list[str]
) -> None:
    inspection = model(
        spec("inputs", "string"), method="tensorflow/serving/classify", features=[X, WORD]
    )
    with pytest.raises(Misfit) as caught:
        fit_case(case("examples", data), inspection)
    assert caught.value.problems == problems


def test_fit_case_of_examples_for_a_signature_that_takes_none_is_refused() -> None:
    with pytest.raises(Misfit, match="takes no tf"):
        fit_case(case("examples", [{"x": 1}]), model(spec("x", "float32")))


def test_check_cases_with_several_misfits_raises_once_with_all() -> None:
    inspection = model(spec("a", "int64"))
    cases = [case("inputs", {"b": 1}), case("inputs", {"a": 1}), case("instances", ["x"])]
    with pytest.raises(BadCase) as caught:
        check_cases(cases, inspection)
    assert caught.value.problems == (
        "c.json#1: inputs: input a is missing",
        "c.json#1: inputs: the signature has no input b",
        "c.json#1: input a: 'x' is no int64",
    )


OUTPUTS = {
    "p": Tensor(dtype="float32", shape=(2,), values=(0.25, 0.75)),
    "label": Tensor(dtype="string", shape=(2,), values=(b"a", b"b")),
}


@pytest.mark.parametrize(
    ("form", "expected", "problems"),
    [
        ("outputs", {"p": [0.25, 0.75]}, []),
        ("outputs", {"p": [0.25, 0.75], "label": ["a", {"b64": "Yg=="}]}, []),
        ("predictions", [{"p": 0.25, "label": "a"}, {"p": 0.75, "label": "b"}], []),
        ("outputs", {"p": [0.25, 0.76]}, ["output p: element 1 is 0.75, expected 0.76"]),
        ("outputs", {"label": ["a", "c"]}, ["output label: element 1 is b'b', expected b'c'"]),
        ("outputs", {"p": [0.25]}, ["output p: expected the shape [1], got [2]"]),
        ("outputs", {"q": [1]}, ["output q is expected, but not there"]),
        (
            "outputs",
            [1],
            ["the expected value does not name its output, and there are several outputs"],
        ),
        (
            "outputs",
            {"label": [1, 2]},
            ["output label: the expected value cannot be read: 1 is no string"],
        ),
        ("outputs", {"p": [float("nan"), 0.75]}, ["output p: element 0 is 0.25, expected nan"]),
    ],
)
def test_check_expected_compares_by_name_shape_and_value(
    form: Any, expected: Any, problems: list[str]
) -> None:
    asked = case("inputs", 1, expected=expected, expected_form=form)
    assert check_expected(asked, OUTPUTS) == problems


def test_check_expected_within_the_tolerance_of_the_case_is_equal() -> None:
    asked = case("inputs", 1, expected=[0.26, 0.75], expected_form="predictions", rtol=0.1)
    assert check_expected(asked, {"p": OUTPUTS["p"]}) == []
