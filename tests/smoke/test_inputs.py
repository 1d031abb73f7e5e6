"""Made-up data: of every dtype, and of shapes that a signature leaves open."""

from __future__ import annotations

import pytest

from servingrepo.savedmodel.inspection import Inspection
from servingrepo.savedmodel.values import ExampleInput, Feature, Signature, TensorSpec
from servingrepo.smoke.inputs import CannotMakeUp, made_up_examples, made_up_tensors
from servingrepo.smoke.tensors import FLOATING, INTEGERS, read_tensor


def signature(
    dtype: str, shape: tuple[int | None, ...] | None, *, has_default: bool = False
) -> Signature:
    spec = TensorSpec(
        alias="x", dtype=dtype, shape=shape, tensor_name="x:0", has_default=has_default
    )
    return Signature(key="s", method_name="", inputs=(spec,), outputs=())


NOTHING = Inspection(path="run")


@pytest.mark.parametrize("dtype", sorted(FLOATING | INTEGERS | {"bool", "complex64"}))
def test_made_up_tensors_of_every_dtype_are_ones_and_then_zeros(dtype: str) -> None:
    first, second = made_up_tensors(signature(dtype, (None, 2)), NOTHING)
    assert read_tensor(first.inputs["x"]).values == (1, 1)
    assert read_tensor(second.inputs["x"]).values == (0, 0)
    assert read_tensor(first.inputs["x"]).shape == (1, 2)
    assert not first.guessed


def test_made_up_strings_can_be_read_as_numbers() -> None:
    first, _ = made_up_tensors(signature("string", ()), NOTHING)
    assert read_tensor(first.inputs["x"]).values == (b"1",)


def test_made_up_tensors_of_unknown_rank_try_vector_scalar_and_matrix() -> None:
    attempts = list(made_up_tensors(signature("float32", None), NOTHING))
    shapes = [read_tensor(one.inputs["x"]).shape for one in attempts]
    assert shapes == [(1,), (), (1, 1)] * 2
    assert all(one.guessed for one in attempts)


def test_inputs_with_defaults_are_left_out_last() -> None:
    attempts = list(made_up_tensors(signature("float32", (1,), has_default=True), NOTHING))
    assert [set(one.inputs) for one in attempts] == [{"x"}, {"x"}, set()]


def test_made_up_tensors_without_inputs_are_one_empty_request() -> None:
    empty = Signature(key="s", method_name="", inputs=(), outputs=())
    assert [one.inputs for one in made_up_tensors(empty, NOTHING)] == [{}]


@pytest.mark.parametrize("single", [False, True])
def test_made_up_examples_of_unknown_rank_are_a_vector(
    *,
    single: bool,
) -> None:
    taken = ExampleInput(signature="s", alias="x", single=single, features=())
    inspection = Inspection(path="run", examples=(taken,))
    first = next(made_up_tensors(signature("string", None), inspection))
    assert read_tensor(first.inputs["x"]).shape == (() if single else (1,))
    assert not first.guessed


@pytest.mark.parametrize(
    ("dtype", "shape"), [("resource", ()), ("variant", (1,)), ("float32", (1 << 20, 1 << 20))]
)
def test_made_up_tensors_that_cannot_be_made_up_say_why(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(CannotMakeUp, match="input x"):
        next(made_up_tensors(signature(dtype, shape), NOTHING))


def feature(
    key: str, dtype: str, shape: tuple[int | None, ...] | None, *, has_default: bool = False
) -> Feature:
    kind = "sparse" if shape is None else "dense"
    return Feature(
        key=key,
        dtype=dtype,
        kind=kind,  # type: ignore[arg-type]
        shape=shape,
        has_default=has_default,
    )


def test_made_up_examples_hold_every_feature() -> None:
    features = [
        feature("f", "float32", (2, 3)),
        feature("i", "int64", (None, 2), has_default=True),
        feature("s", "string", None, has_default=True),
    ]
    first, second, third = made_up_examples(features)
    assert list(first.features.feature["f"].float_list.value) == [1.0] * 6
    assert list(first.features.feature["i"].int64_list.value) == [1, 1]
    assert list(first.features.feature["s"].bytes_list.value) == [b"1"]
    assert list(second.features.feature["s"].bytes_list.value) == [b""]
    assert set(third.features.feature) == {"f"}


def test_made_up_examples_of_a_dtype_that_has_no_list_say_why() -> None:
    with pytest.raises(CannotMakeUp, match="feature b"):
        next(made_up_examples([feature("b", "bool", (1,))]))
