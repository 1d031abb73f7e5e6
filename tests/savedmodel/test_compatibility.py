from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servingrepo.savedmodel.compatibility import compare_shapes, compare_signatures
from servingrepo.savedmodel.values import Signature, TensorSpec

PREDICT = "tensorflow/serving/predict"
Shape = tuple[int | None, ...] | None

shapes = st.none() | st.lists(st.none() | st.integers(0, 3), max_size=3).map(tuple)


def spec(
    alias: str = "x",
    dtype: str = "float32",
    shape: Shape = (None, 4),
    *,
    has_default: bool = False,
    default: str = "",
) -> TensorSpec:
    return TensorSpec(
        alias=alias,
        dtype=dtype,
        shape=shape,
        tensor_name=f"{alias}:0",
        has_default=has_default,
        default=default,
    )


def signature(
    *inputs: TensorSpec,
    outputs: tuple[TensorSpec, ...] = (spec("y"),),
    key: str = "serving_default",
    method: str = PREDICT,
) -> Signature:
    return Signature(key=key, method_name=method, inputs=inputs, outputs=outputs)


specs = st.builds(
    spec,
    alias=st.sampled_from("abc"),
    dtype=st.sampled_from(["float32", "string"]),
    shape=shapes,
    has_default=st.booleans(),
)
sides = st.lists(specs, max_size=3, unique_by=lambda one: one.alias).map(tuple)
signatures = st.lists(
    st.builds(
        lambda key, method, inputs, outputs: Signature(
            key=key, method_name=method, inputs=inputs, outputs=outputs
        ),
        st.sampled_from(["one", "two", "three"]),
        st.sampled_from([PREDICT, "tensorflow/serving/classify", "tensorflow/serving/regress"]),
        sides,
        sides,
    ),
    max_size=3,
    unique_by=lambda one: one.key,
).map(tuple)


@settings(max_examples=40, deadline=None)
@given(signatures)
def test_signatures_are_the_same_as_themselves(some: tuple[Signature, ...]) -> None:
    assert compare_signatures(some, some).verdict == "same"


@settings(max_examples=40, deadline=None)
@given(signatures, signatures)
def test_only_equal_signatures_are_the_same(
    old: tuple[Signature, ...], new: tuple[Signature, ...]
) -> None:
    same = sorted(old, key=lambda one: one.key) == sorted(new, key=lambda one: one.key)

    def plain(some: tuple[Signature, ...]) -> object:
        return {
            one.key: (
                one.method_name,
                set(one.inputs),
                {(s.alias, s.dtype, s.shape) for s in one.outputs},
            )
            for one in some
        }

    assert (compare_signatures(old, new).verdict == "same") == (plain(old) == plain(new))
    assert not same or compare_signatures(old, new).verdict == "same"


@settings(max_examples=40, deadline=None)
@given(signatures, signatures, signatures)
def test_steps_that_break_nobody_do_not_add_up_to_one_that_does(
    first: tuple[Signature, ...], second: tuple[Signature, ...], third: tuple[Signature, ...]
) -> None:
    if not compare_signatures(first, second).breaking and not (
        compare_signatures(second, third).breaking
    ):
        assert not compare_signatures(first, third).breaking


@settings(max_examples=40, deadline=None)
@given(signatures, signatures)
def test_whatever_was_taken_away_breaks(
    old: tuple[Signature, ...], new: tuple[Signature, ...]
) -> None:
    if {one.key for one in old} - {one.key for one in new}:
        assert compare_signatures(old, new).verdict == "breaking"


@settings(max_examples=40, deadline=None)
@given(shapes, shapes)
def test_a_shape_that_widens_one_way_narrows_the_other(one: Shape, other: Shape) -> None:
    opposite = {"same": "same", "widened": "narrowed", "narrowed": "widened", "changed": "changed"}
    assert compare_shapes(other, one) == opposite[compare_shapes(one, other)]


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ((None, 4), None, "widened"),
        ((None, 4), (None, None), "widened"),
        (None, (None, 4), "narrowed"),
        ((None, None), (8, None), "narrowed"),
        ((None, 4), (None, 5), "changed"),
        ((None, 4), (None, 4, 1), "changed"),
        ((), (1,), "changed"),
        ((None, 4), (8, None), "changed"),
    ],
)
def test_compare_shapes(old: Shape, new: Shape, change: str) -> None:
    assert compare_shapes(old, new) == change


@pytest.mark.parametrize(
    ("old", "new", "kinds", "breaking"),
    [
        (signature(spec()), signature(spec("z")), {"input-removed", "input-required"}, True),
        (signature(spec()), signature(spec(dtype="int64")), {"input-dtype-changed"}, True),
        (signature(spec()), signature(spec(shape=(1, 4))), {"input-shape-narrowed"}, True),
        (signature(spec()), signature(spec(shape=(None, 5))), {"input-shape-changed"}, True),
        (signature(spec()), signature(spec(shape=None)), {"input-shape-widened"}, False),
        (signature(spec()), signature(spec(has_default=True)), {"input-gained-default"}, False),
        (signature(spec(has_default=True)), signature(spec()), {"input-lost-default"}, True),
        (signature(spec()), signature(spec(), spec("z")), {"input-required"}, True),
        (signature(spec()), signature(spec(), spec("z", has_default=True)), {"input-added"}, False),
        (
            signature(spec(has_default=True, default="1.0")),
            signature(spec(has_default=True, default="2.0")),
            {"input-default-changed"},
            False,
        ),
        (
            signature(spec()),
            signature(spec(), outputs=(spec("y"), spec("z"))),
            {"output-added"},
            False,
        ),
        (signature(spec()), signature(spec(), outputs=()), {"output-removed"}, True),
        (
            signature(spec()),
            signature(spec(), outputs=(spec("y", "int64"),)),
            {"output-dtype-changed"},
            True,
        ),
        (
            signature(spec()),
            signature(spec(), outputs=(spec("y", shape=(None, None)),)),
            {"output-shape-widened"},
            False,
        ),
        (
            signature(spec()),
            signature(spec(), outputs=(spec("y", shape=(1, 4)),)),
            {"output-shape-narrowed"},
            True,
        ),
        (signature(spec()), signature(spec(), method=""), {"method-changed"}, True),
    ],
)
def test_compare_signatures(
    old: Signature, new: Signature, kinds: set[str], *, breaking: bool
) -> None:
    found = compare_signatures([old], [new])
    assert {one.kind for one in found.changes} == kinds
    assert found.verdict == ("breaking" if breaking else "compatible")


def test_a_signature_that_got_another_name_is_guessed() -> None:
    found = compare_signatures([signature(spec())], [signature(spec(), key="predict")])
    assert found.verdict == "breaking"
    assert "predict is new and has the same tensors: was it renamed?" in found.changes[0].message


@pytest.mark.parametrize(("api", "most"), [("regress", 1), ("classify", 2)])
def test_an_output_too_many_breaks_the_apis_that_count_them(api: str, most: int) -> None:
    outputs = tuple(spec(name) for name in "abc")
    method = f"tensorflow/serving/{api}"
    old = signature(spec(), outputs=outputs[:most], method=method)
    new = signature(spec(), outputs=outputs[: most + 1], method=method)
    assert compare_signatures([old], [new]).verdict == "breaking"


def test_names_in_the_graph_do_not_count() -> None:
    old, new = signature(spec()), signature(spec())
    renamed = TensorSpec(alias="x", dtype="float32", shape=(None, 4), tensor_name="other:0")
    assert compare_signatures([old], [signature(renamed, outputs=new.outputs)]).verdict == "same"


def test_a_hundred_thousand_signatures_are_compared_in_seconds() -> None:
    old = [signature(spec(), key=f"a{number}") for number in range(100_000)]
    new = [signature(spec(), key=f"b{number}") for number in range(100_000)]
    assert len(compare_signatures(old, new).changes) == 200_000
