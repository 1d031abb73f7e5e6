"""Make up inputs from a signature, for models without smoke cases.

Made-up data proves only that the server can answer a request; the answer may still be wrong. A free dimension becomes
1. If the rank is unknown, a vector, a scalar and a matrix are tried in turn. Varied data have other values in each
row, the same ones each time, words of the export's vocabularies, and several sizes of a batch.
"""

from __future__ import annotations

import random
from math import prod
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.protos import example_pb2
from servingrepo.savedmodel.reading import Unreadable, files_of
from servingrepo.smoke.tensors import (
    ELEMENT_LIMIT,
    FLOATING,
    INTEGERS,
    Scalar,
    fill_tensor,
    make_tensor,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import ExampleInput, Feature, Signature, TensorSpec

__all__ = [
    "Attempt",
    "CannotMakeUp",
    "made_up_examples",
    "made_up_tensors",
    "read_words",
    "varied_examples",
    "varied_tensors",
]

BATCHES = (2, 8)
"""Rows of varied requests."""
VARIED_LIMIT = 1 << 14
"""Values of a varied input: each one is made up."""
_MOST_VOCABULARIES = 20
_MOST_WORDS = 100
_VOCABULARY_START = 1 << 16
"""Bytes that are read of a vocabulary."""

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


def read_words(export: Path, assets: Sequence[str]) -> dict[str, tuple[bytes, ...]]:
    """Return the first words of the vocabularies among an export's assets, by the asset's name.

    A vocabulary is UTF-8 text with a word in each line, up to its first tab.
    """
    files = files_of(export)
    found = {}
    for name in assets[:_MOST_VOCABULARIES]:
        try:
            with files.open(f"assets/{name}") as (file, _):
                start = file.read(_VOCABULARY_START)
        except Unreadable:
            continue
        whole = start if len(start) < _VOCABULARY_START else start[: start.rfind(b"\n") + 1]
        if b"\0" in whole or not _is_text(whole):
            continue
        lines = (one.partition(b"\t")[0] for one in whole.splitlines())
        words = tuple(dict.fromkeys(one for one in lines if one))[:_MOST_WORDS]
        if words:
            found[name] = words
    return found


def varied_tensors(
    signature: Signature, inspection: Inspection, words: Mapping[str, tuple[bytes, ...]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a number of rows, and varied inputs for Predict: a batch of each size, or one of the only size there is.

    Nothing comes for signatures with an unknown rank, without inputs, or with inputs that cannot be made up.
    """
    specs = signature.inputs
    examples = {one.alias: inspection.example_input(signature.key, one.alias) for one in specs}
    if not specs or any(one.shape is None and examples[one.alias] is None for one in specs):
        return
    free = all(
        not taker.single if (taker := examples[one.alias]) is not None else _has_rows(one)
        for one in specs
    )
    for rows in BATCHES if free else (1,):
        chance = _chance(signature.key, rows)
        try:
            yield (
                rows,
                {
                    one.alias: _varied(one, examples[one.alias], rows, chance, words)
                    for one in specs
                },
            )
        except (CannotMakeUp, ValueError):
            return


def varied_examples(
    key: str, features: Sequence[Feature], words: Mapping[str, tuple[bytes, ...]]
) -> Iterator[tuple[Any, ...]]:
    """Yield batches of varied tf.Examples, of each size; nothing if they cannot be made up."""
    for rows in BATCHES:
        chance = _chance(key, rows)
        try:
            yield tuple(_varied_example(features, chance, words) for _ in range(rows))
        except CannotMakeUp:
            return


def _chance(key: str, rows: int) -> random.Random:
    """Return what gives the same values each time."""
    return random.Random(f"{key}/{rows}")  # noqa: S311 # nosec B311 # data of a test, no secret


def _has_rows(spec: TensorSpec) -> bool:
    return bool(spec.shape) and spec.shape is not None and spec.shape[0] is None


def _varied(
    spec: TensorSpec,
    taker: ExampleInput | None,
    rows: int,
    chance: random.Random,
    words: Mapping[str, tuple[bytes, ...]],
) -> Any:
    if taker is not None:
        contents = [
            _varied_example(taker.features, chance, words).SerializeToString(deterministic=True)
            for _ in range(rows)
        ]
        return make_tensor("string", () if taker.single else (rows,), contents)
    shape = [1 if size is None else size for size in spec.shape or ()]
    if _has_rows(spec):
        shape[0] = rows
    return make_tensor(
        spec.dtype, shape, _varied_values(spec.alias, spec.dtype, prod(shape), chance, words)
    )


def _varied_values(
    name: str,
    dtype: str,
    count: int,
    chance: random.Random,
    words: Mapping[str, tuple[bytes, ...]],
) -> list[Any]:
    """Return values of a dtype. Integers are 0 and 1, which are in the range of every table."""
    if count > VARIED_LIMIT:
        raise CannotMakeUp(f"{name} has {count} values, too many to vary")
    if dtype == "string":
        known = _words_for(name, words)
        return [chance.choice(known) for _ in range(count)]
    if dtype == "bool":
        return [chance.random() < 0.5 for _ in range(count)]  # noqa: PLR2004 - either is as likely
    if dtype in INTEGERS:
        return [chance.randrange(2) for _ in range(count)]
    # An eighth is the same number in every dtype of floats.
    return [chance.randrange(9) / 8 for _ in range(count)]


def _words_for(name: str, words: Mapping[str, tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """Return the words of the vocabularies that are named after an input or feature, else those of all."""
    own = [found for asset, found in words.items() if name.lower() in asset.lower()]
    return tuple(one for found in own or words.values() for one in found) or (b"1", b"0", b"")


def _varied_example(
    features: Sequence[Feature], chance: random.Random, words: Mapping[str, tuple[bytes, ...]]
) -> Any:
    example = example_pb2.Example()
    for one in features:
        target = example.features.feature[one.key]
        count = prod(1 if size is None else size for size in one.shape or ())
        values = _varied_values(one.key, one.dtype, count, chance, words)
        if one.dtype == "string":
            target.bytes_list.value.extend(values)
        elif one.dtype == "int64":
            target.int64_list.value.extend(values)
        elif one.dtype in FLOATING:
            target.float_list.value.extend(values)
        else:
            raise CannotMakeUp(f"feature {one.key}: a tf.Example cannot hold {one.dtype}")
    return example


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
