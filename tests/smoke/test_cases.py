"""Case files: what is read, and what is said of those that cannot be."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servingrepo.errors import BadCase
from servingrepo.smoke.files import load_cases

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.smoke.cases import SmokeCase


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "case.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_load_cases_of_one_object_is_one_case_for_the_default_signature(tmp_path: Path) -> None:
    path = write(tmp_path, {"instances": [1.0]})
    (case,) = load_cases(path)
    assert (case.signature, case.form, case.data) == ("serving_default", "instances", [1.0])
    assert case.source == f"case {path}#1"


def test_load_cases_of_a_list_keeps_order_and_positions(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [
            {"signature_name": "a", "inputs": {"x": [1]}, "outputs": [2], "rtol": 0.5},
            {"signature_name": "b", "examples": [{"x": 1}], "context": {"y": "z"}},
        ],
    )
    first, second = load_cases(path)
    assert (first.position, first.form, first.expected_form, first.rtol) == (
        1,
        "inputs",
        "outputs",
        0.5,
    )
    assert (second.position, second.signature, second.context) == (2, "b", {"y": "z"})


def test_load_cases_takes_nan_and_infinity_as_the_server_does(tmp_path: Path) -> None:
    (case,) = load_cases(write(tmp_path, '{"instances": [NaN, Infinity, -Infinity]}'))
    assert math.isnan(case.data[0])
    assert case.data[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "it holds no case"),
        (3, "a case is an object, not a number"),
        ({"inputs": 1, "instances": [1]}, "found instances and inputs"),
        ({"signature_name": "x"}, "found none"),
        ({"instances": []}, "instances must be a list that is not empty"),
        ({"examples": {"x": 1}}, "examples must be a list that is not empty"),
        ({"inputs": 1, "signature_name": 1}, "signature_name must be a string"),
        ({"inputs": 1, "context": {}}, "context must be an object, beside examples"),
        ({"inputs": 1, "outputs": 1, "predictions": [1]}, "not both"),
        ({"inputs": 1, "outputs": 1, "rtol": -1}, "rtol must be a number"),
        ({"inputs": 1, "outputs": 1, "atol": math.nan}, "atol must be a number"),
        ({"inputs": 1, "rtol": 1}, "rtol is for predictions or outputs"),
        ({"inputs": 1, "instance": 1}, "unknown key 'instance'"),
    ],
)
def test_load_cases_of_something_else_says_what_is_wrong_and_where(
    tmp_path: Path, content: Any, problem: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(BadCase) as caught:
        load_cases(path)
    (text,) = caught.value.problems
    assert text.startswith(str(path))
    assert problem in text


def test_load_cases_with_several_bad_ones_names_all_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, [{"instances": []}, {"instances": [1]}, {"x": 1}])
    with pytest.raises(BadCase) as caught:
        load_cases(path)
    assert [text.split(":")[0] for text in caught.value.problems] == [
        f"{path}#1",
        f"{path}#3",
        f"{path}#3",
    ]


@pytest.mark.parametrize("content", ["", "{", '{"inputs": 1} x', "[" * 100_000, "\udcff"])
def test_load_cases_of_no_json_says_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "case.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadCase, match="is no JSON"):
        load_cases(path)


def test_load_cases_of_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadCase, match="it is missing"):
        load_cases(tmp_path / "none.json")


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "instances", "examples", "signature_name", "rtol", "outputs"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=ANY_JSON)
def test_load_cases_of_any_json_is_cases_or_bad_and_nothing_else(
    tmp_path: Path, content: Any
) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(content))
    problems: tuple[str, ...] = ()
    cases: tuple[SmokeCase, ...] = ()
    try:
        cases = load_cases(path)
    except BadCase as error:
        problems = error.problems
    assert bool(cases) is not bool(problems)
