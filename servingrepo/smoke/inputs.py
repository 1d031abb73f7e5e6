"""Make up inputs from a signature, for models without smoke cases.

Made-up data proves only that the server can answer a request; the answer may still be wrong. A free dimension becomes
1. If the rank is unknown, a vector, a scalar and a matrix are tried in turn.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.protos import example_pb2
from servingrepo.smoke.tensors import ELEMENT_LIMIT, FLOATING, INTEGERS, Scalar, fill_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import ExampleInput, Feature, Signature, TensorSpec

__all__ = ["Attempt", "CannotMakeUp", "made_up_examples", "made_up_tensors"]

FEATURE_LIMIT = 1 << 20
"""Values of one feature. A feature sends each value, while a tensor can send one value for all elements."""

_RANKS: tuple[tuple[int, ...], ...] = ((1,), (), (1, 1))
_FILLINGS = (1, 0)


class CannotMakeUp(Exception):
    """Data cannot be made up for a signature; the message says why."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of one Predict request by alias; `guessed` if a rank was guessed."""

    inputs: dict[str, Any]
    guessed: bool


def made_up_tensors(signature: Signature, inspection: Inspection) -> Iterator[Attempt]:
    """Yield inputs for Predict, the most common kind first: ones before zeros, vectors before scalars.

    Inputs that take serialized tf.Examples get them. The last attempt leaves out inputs with a default.

    Raises:
        CannotMakeUp: The dtype or size of an input makes it impossible.
    """
    if not signature.inputs:
        yield Attempt(inputs={}, guessed=False)
        return
    examples = {
        spec.alias: inspection.example_input(signature.key, spec.alias) for spec in signature.inputs
    }
    guessed = any(spec.shape is None and examples[spec.alias] is None for spec in signature.inputs)

    def attempt(specs: Iterable[TensorSpec], filling: int, rank: tuple[int, ...]) -> Attempt:
        inputs = {one.alias: _input(one, examples[one.alias], filling, rank) for one in specs}
        return Attempt(inputs=inputs, guessed=guessed)

    for filling in _FILLINGS:
        for rank in _RANKS if guessed else _RANKS[:1]:
            yield attempt(signature.inputs, filling, rank)
    needed = [spec for spec in signature.inputs if not spec.has_default]
    if len(needed) < len(signature.inputs):
        yield attempt(needed, 1, _RANKS[0])


def made_up_examples(features: Sequence[Feature]) -> Iterator[Any]:
    """Yield tf.Examples with these features: first with ones, then with zeros, then only with the required features.

    Raises:
        CannotMakeUp: A tf.Example cannot hold the dtype or the size of a feature.
    """
    for filling in _FILLINGS:
        yield _example(features, filling)
    needed = [one for one in features if not one.has_default]
    if len(needed) < len(features):
        yield _example(needed, 1)


def _input(
    spec: TensorSpec, examples: ExampleInput | None, filling: int, rank: tuple[int, ...]
) -> Any:
    if examples is not None:
        # It is a vector even if the signature's rank is unknown, because ParseExample takes only vectors.
        content = _example(examples.features, filling).SerializeToString(deterministic=True)
        return fill_tensor("string", () if examples.single else (1,), content)
    shape = rank if spec.shape is None else tuple(1 if one is None else one for one in spec.shape)
    if prod(shape) > ELEMENT_LIMIT:
        raise CannotMakeUp(f"input {spec.alias} of shape {list(shape)} is too large to make up")
    try:
        return fill_tensor(spec.dtype, shape, _value(spec.dtype, filling))
    except ValueError as error:
        raise CannotMakeUp(f"input {spec.alias}: {error}") from error


def _value(dtype: str, filling: int) -> Scalar:
    if dtype == "string":
        return b"1" if filling else b""  # a word that can also be read as a number
    if dtype == "bool":
        return bool(filling)
    return filling if dtype in INTEGERS else float(filling)


def _example(features: Sequence[Feature], filling: int) -> Any:
    example = example_pb2.Example()
    for one in features:
        target = example.features.feature[one.key]
        shape = [1 if size is None else size for size in one.shape or ()]
        count = prod(shape)
        if count > FEATURE_LIMIT:
            raise CannotMakeUp(f"feature {one.key} of shape {shape} is too large to make up")
        if one.dtype == "string":
            target.bytes_list.value.extend([_value(one.dtype, filling)] * count)
        elif one.dtype == "int64":
            target.int64_list.value.extend([filling] * count)
        elif one.dtype in FLOATING:
            target.float_list.value.extend([filling] * count)
        else:
            raise CannotMakeUp(
                f"feature {one.key}: a tf.Example cannot hold values of type {one.dtype}"
            )
    return example
