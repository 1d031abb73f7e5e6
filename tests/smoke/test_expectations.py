"""Conditions on answers: what meets them, what does not, and what is nonsense."""

from __future__ import annotations

import math
from typing import Any

import pytest

from servingrepo.smoke.expectations import check_conditions, read_expected
from servingrepo.smoke.tensors import Tensor


def tensor(dtype: str, shape: tuple[int, ...], *values: Any) -> Tensor:
    return Tensor(dtype=dtype, shape=shape, values=values)


ROWS = tensor("float32", (2, 3), 0.5, 0.25, 0.25, 0.0, 0.1, 0.9)
TEXTS = tensor("string", (2,), b"cat", b"dog")
WITH_NAN = tensor("float32", (2,), 1.0, math.nan)


def problems(output: Tensor, **conditions: Any) -> list[str]:
    expected = read_expected({"outputs": {"y": conditions}})
    return check_conditions(expected, {"y": output})


@pytest.mark.parametrize(
    ("output", "met", "unmet", "said"),
    [
        (ROWS, {"argmax": [0, 2]}, {"argmax": [0, 1]}, "row 1: the greatest value is at 2"),
        (ROWS, {"argmax": [0, 2]}, {"argmax": 0}, "row 1"),
        (ROWS, {"argmax": [0, 2]}, {"argmax": [0]}, "1 rows are expected, and there are 2"),
        (ROWS, {"top_k": [[0], [1, 2]]}, {"top_k": [[0], [0, 2]]}, "row 1"),
        (ROWS, {"top_k": [2, 0, 1]}, {"top_k": [0, 2]}, "row 0"),
        (ROWS, {"top_k": [[1, 0], [2]]}, {"top_k": [[0]]}, "1 rows are expected"),
        (ROWS, {"sums_to_one": True}, {"min": 0.2, "sums_to_one": True}, "element 3 is 0.0"),
        (ROWS, {"min": 0, "max": 1}, {"max": 0.8}, "element 5 is 0.9"),
        (ROWS, {"shape": [None, 3]}, {"shape": [2]}, "it has the shape [2, 3]"),
        (ROWS, {"dtype": "float32"}, {"dtype": "int64"}, "it is float32, expected int64"),
        (TEXTS, {"equal": ["cat", "dog"]}, {"equal": ["cat", "cow"]}, "element 1"),
        (TEXTS, {"label_in": ["cat", "dog"]}, {"label_in": ["cat"]}, "none of the 1 labels"),
        (TEXTS, {"equal": [{"b64": "Y2F0"}, "dog"]}, {"equal": ["cat"]}, "expected the shape"),
        (TEXTS, {"dtype": "string"}, {"max": 3}, "it holds no numbers (string)"),
        (
            tensor("int64", (2,), 3, 4),
            {"label_in": [3, 4]},
            {"label_in": [3]},
            "element 1 is 4",
        ),
        (
            tensor("float32", (1,), 2.5),
            {"close": [2.4], "atol": 0.2},
            {"close": [2.4], "atol": 0.01},
            "element 0 is 2.5, expected 2.4",
        ),
        (
            tensor("float32", (1,), 100.0),
            {"close": [99], "rtol": 0.02},
            {"equal": [99]},
            "element 0 is 100.0, expected 99",
        ),
        (
            tensor("float32", (2,), 0.5, 0.4),
            {"argmax": 0},
            {"sums_to_one": True},
            "row 0 sums up to 0.9",
        ),
        (
            WITH_NAN,
            {"equal": [1.0, math.nan], "finite": False, "max": 2},
            {"equal": [math.nan, 1.0], "finite": False},
            "element 0 is 1.0, expected nan",
        ),
        (tensor("float32", (), 1.0), {"equal": 1.0}, {"argmax": 0}, "has no rows of values"),
        (tensor("float32", (0, 2)), {"equal": []}, {"equal": [[1.0, 2.0]]}, "expected the shape"),
    ],
)
def test_a_condition_is_met_or_its_problem_said(
    output: Tensor, met: dict[str, Any], unmet: dict[str, Any], said: str
) -> None:
    assert problems(output, **met) == []
    (problem,) = problems(output, **unmet)
    assert problem.startswith("output y: ")
    assert said in problem


def test_every_unmet_condition_is_said() -> None:
    assert len(problems(ROWS, dtype="int32", shape=[1], max=0.1, argmax=1)) == 4


def test_an_output_that_is_not_there_is_said() -> None:
    expected = read_expected({"outputs": {"z": {"finite": True}}})
    assert check_conditions(expected, {}) == ["output z is expected, but not there"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3, "Expected `object`"),
        ({"output": {}}, "unknown field `output`"),
        ({"outputs": {"y": {"near": 1}}}, "unknown field `near`"),
        ({"outputs": {"y": {"equal": [[1], 2]}}}, "output y: equal: lists and plain values"),
        ({"outputs": {"y": {"close": [math.nan]}}}, "expects NaN: add finite = false"),
        ({"outputs": {"y": {"equal": [[math.nan]]}}}, "expects NaN: add finite = false"),
        ({"outputs": {"y": {"min": math.nan}}}, "min is NaN"),
        ({"outputs": {"y": {"min": 2, "max": 1}}}, "min 2.0 is above max 1.0"),
        ({"outputs": {"y": {"rtol": -1}}}, "rtol must be a number that is not negative"),
        ({"outputs": {"y": {"atol": math.nan}}}, "atol must be a number"),
        ({"outputs": {"y": {"top_k": [1, [2]]}}}, "top_k must be a list of places"),
        ({"outputs": {"y": {"top_k": []}}}, "top_k must be a list of places"),
        ({"error": {"code": "WRONG"}}, "'WRONG' is no code of gRPC"),
        ({"error": {"code": "UNAVAILABLE"}}, "'UNAVAILABLE' is no code of gRPC"),
        ({"error": {"code": "INTERNAL"}, "outputs": {"y": {}}}, "no outputs"),
        ({"predicate": "os.system"}, "not of the form module:function"),
        ({"predicate": "os:system; rm"}, "not of the form module:function"),
    ],
)
def test_nonsense_is_refused_with_its_place(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_expected(value)
    assert problem in str(caught.value)
