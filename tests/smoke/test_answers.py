"""Answers are held to what the signature declares."""

from __future__ import annotations

import pytest

from servingrepo.savedmodel.values import Signature, TensorSpec
from servingrepo.smoke.answers import shape_problems
from servingrepo.smoke.tensors import Tensor


@pytest.mark.parametrize(
    ("declared", "shape", "fits"),
    [
        (None, (1, 2, 3), True),
        ((), (), True),
        ((), (1,), False),
        ((None,), (5,), True),
        ((None, 3), (5, 3), True),
        ((None, 3), (5, 4), False),
        ((None, 3), (3,), False),
        ((1, 10), (1, 10), True),
        ((1, 10), (2, 10), False),
    ],
)
def test_shape_problems_of_every_dimension_that_is_not_free(
    *, declared: tuple[int | None, ...] | None, shape: tuple[int, ...], fits: bool
) -> None:
    spec = TensorSpec(alias="y", dtype="float32", shape=declared, tensor_name="y:0")
    signature = Signature(key="s", method_name="", inputs=(), outputs=(spec,))
    tensor = Tensor(dtype="float32", shape=shape, values=())
    assert (shape_problems({"y": tensor}, signature) == []) is fits
