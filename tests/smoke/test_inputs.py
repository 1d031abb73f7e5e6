"""Made-up data: of every dtype, and of shapes that a signature leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.savedmodel.inspection import Inspection
from servingrepo.savedmodel.values import ExampleInput, Feature, Signature, TensorSpec
from servingrepo.smoke.inputs import (
    CannotMakeUp,
    made_up_examples,
    made_up_tensors,
    read_words,
    varied_examples,
    varied_tensors,
)
from servingrepo.smoke.tensors import FLOATING, INTEGERS, read_tensor

if TYPE_CHECKING:
    from pathlib import Path


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


WORDS = {"city_vocab.txt": (b"Ulm", b"Bonn"), "other": (b"red", b"blue")}


@pytest.mark.parametrize("dtype", sorted(FLOATING | INTEGERS | {"bool", "complex64"}))
def test_varied_tensors_of_every_dtype_have_several_sizes(dtype: str) -> None:
    varied = list(varied_tensors(signature(dtype, (None, 2)), NOTHING, {}))
    assert [rows for rows, _ in varied] == [2, 8]
    tensors = [read_tensor(inputs["x"]) for _, inputs in varied]
    assert [one.shape for one in tensors] == [(2, 2), (8, 2)]
    assert len(set(tensors[1].values)) > 1
    again = varied_tensors(signature(dtype, (None, 2)), NOTHING, {})
    assert [read_tensor(inputs["x"]) for _, inputs in again] == tensors


def test_varied_tensors_of_a_fixed_shape_have_one_size() -> None:
    ((rows, inputs),) = varied_tensors(signature("float32", (3, None)), NOTHING, {})
    assert (rows, read_tensor(inputs["x"]).shape) == (1, (3, 1))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float32", None), ("resource", (None,)), ("float32", (None, 1 << 20))]
)
def test_what_cannot_be_varied_is_left_out(
    dtype: str, shape: tuple[int | None, ...] | None
) -> None:
    assert list(varied_tensors(signature(dtype, shape), NOTHING, {})) == []


def test_varied_strings_are_words_of_their_vocabulary() -> None:
    spec = TensorSpec(alias="City", dtype="string", shape=(None,), tensor_name="x:0")
    named = Signature(key="s", method_name="", inputs=(spec,), outputs=())
    *_, (_, inputs) = varied_tensors(named, NOTHING, WORDS)
    assert set(read_tensor(inputs["City"]).values) == {b"Ulm", b"Bonn"}
    *_, (_, inputs) = varied_tensors(signature("string", (None,)), NOTHING, WORDS)
    assert set(read_tensor(inputs["x"]).values) <= {b"Ulm", b"Bonn", b"red", b"blue"}
    *_, (_, inputs) = varied_tensors(signature("string", (None,)), NOTHING, {})
    assert set(read_tensor(inputs["x"]).values) == {b"1", b"0", b""}


def test_varied_examples_differ_and_hold_every_feature() -> None:
    features = [
        Feature(key="city", dtype="string", kind="dense", shape=(1,), has_default=False),
        Feature(key="n", dtype="int64", kind="dense", shape=(3,), has_default=False),
        Feature(key="f", dtype="float32", kind="sparse", shape=None, has_default=True),
    ]
    two, eight = varied_examples("s", features, WORDS)
    assert (len(two), len(eight)) == (2, 8)
    assert len({one.SerializeToString(deterministic=True) for one in eight}) > 4
    assert len(two[0].features.feature["n"].int64_list.value) == 3
    assert two[0].features.feature["city"].bytes_list.value[0] in {b"Ulm", b"Bonn"}
    broken = [Feature(key="b", dtype="bool", kind="dense", shape=(1,), has_default=False)]
    assert list(varied_examples("s", broken, {})) == []


def test_words_are_read_from_text_alone(tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "plain").write_text("a\nb\n\na\n")
    (assets / "tabs").write_text("x\t1\ny\t2\n")
    (assets / "binary").write_bytes(b"\x00\x01")
    (assets / "latin").write_bytes(b"\xff\n")
    (assets / "long").write_text("".join(f"word{number}\n" for number in range(100_000)))
    (tmp_path / "secret").write_text("token\n")
    (assets / "link").symlink_to(tmp_path.parent)
    (assets / "out").symlink_to("/etc/hostname")
    names = [*sorted(one.name for one in assets.iterdir()), "../secret", "none"]
    found = read_words(tmp_path, names)
    assert (found["plain"], found["tabs"]) == ((b"a", b"b"), (b"x", b"y"))
    assert len(found["long"]) == 100
    assert found.keys() - {"../secret"} == {"plain", "tabs", "long"}
