"""What a case expects of its answer, and how an answer is held against it.

An answer of Classify has the outputs `classes` and `scores`, one of Regress the output `outputs`, as the signatures
of these APIs name them (classifier.cc, regressor.cc).
"""

from __future__ import annotations

import base64
import binascii
import cmath
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from servingrepo.smoke.tensors import Tensor

__all__ = [
    "ATOL",
    "RTOL",
    "Expected",
    "ExpectedError",
    "ExpectedOutput",
    "as_bytes",
    "check_conditions",
    "differences",
    "fits_shape",
    "flatten",
    "read_expected",
    "short",
]

RTOL = 1e-4
ATOL = 1e-6
SUM_TOLERANCE = 1e-3
"""How far from 1 a row of probabilities may sum up: float32 over a few thousand classes, and half precision."""
_PREDICATE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_CODES = frozenset(
    {
        *("CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS"),
        *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED"),
        *("OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "DATA_LOSS", "UNAUTHENTICATED"),
    }
)
"""gRPC's codes, but for those of a server that gives no answer: UNAVAILABLE and DEADLINE_EXCEEDED."""


class ExpectedOutput(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Conditions on one output. A row is what the last dimension holds.

    Attributes:
        equal: The exact values.
        close: The values, within `atol + rtol * |value|`.
        rtol: The relative tolerance of `close`.
        atol: The absolute tolerance of `close`.
        min: No value is below it.
        max: No value is above it.
        argmax: The place of each row's greatest value; a number is for all rows.
        top_k: The set of places of each row's greatest values; one list is for all rows.
        shape: The shape, with null for any size.
        dtype: The dtype, such as float32.
        finite: False allows NaN and infinity, which are a fault otherwise.
        sums_to_one: Each row sums up to 1, within 0.001.
        label_in: Every value is one of these.
    """

    equal: Any = msgspec.UNSET
    close: Any = msgspec.UNSET
    rtol: float = RTOL
    atol: float = ATOL
    min: float | None = None
    max: float | None = None
    argmax: int | list[int] | None = None
    top_k: list[int | list[int]] | None = None
    shape: list[int | None] | None = None
    dtype: str = ""
    finite: bool = True
    sums_to_one: bool = False
    label_in: list[str | int] | None = None


class ExpectedError(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The refusal that a case expects: gRPC's name of the code, and a part of the text."""

    code: str
    text: str = ""


class Expected(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What a case expects: conditions by output, or an error, or what a predicate says."""

    outputs: dict[str, ExpectedOutput] = {}
    error: ExpectedError | None = None
    predicate: str = ""


def read_expected(value: Any) -> Expected:
    """Read the `expect` of a case.

    Raises:
        ValueError: It has another form, or expects what no answer can be.
    """
    try:
        expected = msgspec.convert(value, Expected)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    if expected.error is not None:
        if expected.outputs or expected.predicate:
            raise ValueError("an error is expected, so no outputs and no predicate can be")
        if expected.error.code not in _CODES:
            raise ValueError(
                f"error: {expected.error.code!r} is no code of gRPC, such as INVALID_ARGUMENT"
            )
    if expected.predicate and not _PREDICATE.fullmatch(expected.predicate):
        raise ValueError(f"predicate: {expected.predicate!r} is not of the form module:function")
    for alias, one in expected.outputs.items():
        for problem in _nonsense(one):
            raise ValueError(f"output {alias}: {problem}")
    return expected


def check_conditions(expected: Expected, outputs: Mapping[str, Tensor]) -> list[str]:
    """Return a problem for each condition that an answer does not meet."""
    problems = []
    for alias, wanted in expected.outputs.items():
        if alias not in outputs:
            problems.append(f"output {alias} is expected, but not there")
            continue
        problems += [f"output {alias}: {text}" for text in _unmet(wanted, outputs[alias])]
    return problems


def differences(
    wanted: Any, tensor: Tensor, *, rtol: float = 0.0, atol: float = 0.0, nan: bool = False
) -> str:
    """Return the first difference between an output and the expected JSON value; empty if there is none.

    `nan` says that NaN equals NaN.
    """
    try:
        shape, flat = flatten(wanted)
        values = [as_bytes(one) for one in flat] if tensor.dtype == "string" else flat
    except ValueError as error:
        return f"the expected value cannot be read: {error}"
    # An empty list does not say the sizes of the dimensions in it.
    if tuple(shape) != tensor.shape and (values or tensor.values):
        return f"expected the shape {shape}, got {list(tensor.shape)}"
    if tuple(values) == tensor.values and set(map(type, values)) == {float}:
        return ""  # most answers are the very same
    for place, (want, got) in enumerate(zip(values, tensor.values, strict=True)):
        if not (_close(want, got, rtol, atol) or (nan and _nan(want) and _nan(got))):
            return f"element {place} is {short(got)}, expected {short(want)}"
    return ""


def fits_shape(shape: Sequence[int], wanted: Sequence[int | None] | None) -> bool:
    """Tell whether a shape is the wanted one. A size None fits every size, and no shape at all every shape."""
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(
        want is None or size == want for size, want in zip(shape, wanted, strict=True)
    )


def flatten(value: Any) -> tuple[list[int], list[Any]]:
    """Return the shape and the elements of nested lists. It goes level by level, so that depth costs no stack.

    Raises:
        ValueError: The lists have gaps.
    """
    if isinstance(value, list) and list not in set(map(type, value)):
        return [len(value)], value
    shape: list[int] = []
    level = [value]
    while level and all(isinstance(one, list) for one in level):
        sizes = {len(one) for one in level}
        if len(sizes) != 1:
            raise ValueError(f"lists of different lengths: {', '.join(map(str, sorted(sizes)))}")
        shape.append(sizes.pop())
        level = [inner for one in level for inner in one]
    if any(isinstance(one, list) for one in level):
        raise ValueError("lists and plain values are mixed")
    return shape, level


def as_bytes(value: Any) -> bytes:
    """Return the bytes of a JSON string, of `{"b64": "..."}`, or of bytes.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"the text of b64 is no base64: {error}") from error
    raise ValueError(f"{short(value)} is no string")


def short(value: Any) -> str:
    """Return a value as text that has room in one line."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004 - room in one line


def _unmet(wanted: ExpectedOutput, tensor: Tensor) -> Iterator[str]:
    """Yield each condition that an output does not meet, in words."""
    if wanted.dtype and wanted.dtype != tensor.dtype:
        yield f"it is {tensor.dtype}, expected {wanted.dtype}"
    if wanted.shape is not None and not fits_shape(tensor.shape, wanted.shape):
        yield f"it has the shape {list(tensor.shape)}, expected {wanted.shape}"
    nan = not wanted.finite
    if wanted.equal is not msgspec.UNSET and (text := differences(wanted.equal, tensor, nan=nan)):
        yield text
    if wanted.close is not msgspec.UNSET and (
        text := differences(wanted.close, tensor, rtol=wanted.rtol, atol=wanted.atol, nan=nan)
    ):
        yield text
    if wanted.label_in is not None:
        yield from _labels(wanted.label_in, tensor)
    ranges = wanted.min is not None or wanted.max is not None
    rows = wanted.argmax is not None or wanted.top_k is not None or wanted.sums_to_one
    if not (ranges or rows):
        return
    if not all(isinstance(one, int | float) for one in tensor.values):
        yield f"it holds no numbers ({tensor.dtype}) that could be ordered"
        return
    if ranges:
        yield from _range(wanted, tensor)
    if rows:
        yield from _rows(wanted, tensor)


def _range(wanted: ExpectedOutput, tensor: Tensor) -> Iterator[str]:
    low = -math.inf if wanted.min is None else wanted.min
    high = math.inf if wanted.max is None else wanted.max
    for place, one in enumerate(tensor.values):
        if not low <= one <= high and not (math.isnan(one) and not wanted.finite):
            yield f"element {place} is {short(one)}, expected between {low} and {high}"
            return


def _rows(wanted: ExpectedOutput, tensor: Tensor) -> Iterator[str]:
    size = tensor.shape[-1] if tensor.shape else 0
    if not size:
        yield f"it has the shape {list(tensor.shape)}, which has no rows of values"
        return
    rows = [tensor.values[at : at + size] for at in range(0, len(tensor.values), size)]
    if wanted.argmax is not None:
        found = [max(range(size), key=row.__getitem__) for row in rows]
        best = [wanted.argmax] * len(rows) if isinstance(wanted.argmax, int) else wanted.argmax
        yield from _by_row("the greatest value is at", best, found)
    if wanted.top_k is not None:
        flat = [one for one in wanted.top_k if isinstance(one, int)]
        lists = [one for one in wanted.top_k if isinstance(one, list)]
        each = lists or [flat] * len(rows)
        tops = [
            sorted(sorted(range(size), key=row.__getitem__, reverse=True)[: len(one)])
            for row, one in zip(rows, each, strict=False)
        ]
        yield from _by_row(
            "the greatest values are at", [sorted(one) for one in each], tops, len(rows)
        )
    if wanted.sums_to_one:
        for place, row in enumerate(rows):
            if not abs(math.fsum(row) - 1.0) <= SUM_TOLERANCE:
                yield f"row {place} sums up to {math.fsum(row):.6g}, expected 1"
                return


def _by_row(
    what: str, wanted: list[Any], found: list[Any], rows: int | None = None
) -> Iterator[str]:
    rows = len(found) if rows is None else rows
    if len(wanted) != rows:
        yield f"{len(wanted)} rows are expected, and there are {rows}"
        return
    for place, (want, got) in enumerate(zip(wanted, found, strict=True)):
        if want != got:
            yield f"row {place}: {what} {got}, expected {want}"
            return


def _labels(wanted: list[str | int], tensor: Tensor) -> Iterator[str]:
    known = {one.encode() if isinstance(one, str) else one for one in wanted}
    for place, one in enumerate(tensor.values):
        if one not in known:
            yield f"element {place} is {short(one)}, which is none of the {len(known)} labels"
            return


def _nonsense(wanted: ExpectedOutput) -> Iterator[str]:
    """Yield why no answer can meet these conditions."""
    for name in ("rtol", "atol"):
        if not getattr(wanted, name) >= 0:  # NaN too
            yield f"{name} must be a number that is not negative"
    low, high = wanted.min, wanted.max
    for name, number in (("min", low), ("max", high)):
        if number is not None and math.isnan(number):
            yield f"{name} is NaN, and nothing can be compared with it"
    if low is not None and high is not None and low > high:
        yield f"min {low} is above max {high}"
    if wanted.top_k is not None and len({type(one) for one in wanted.top_k}) != 1:
        yield "top_k must be a list of places, or a list of such lists for the rows"
    for name in ("equal", "close"):
        value = getattr(wanted, name)
        if value is not msgspec.UNSET:
            yield from _nonsense_values(name, value, wanted)


def _nonsense_values(name: str, value: Any, wanted: ExpectedOutput) -> Iterator[str]:
    try:
        _, flat = flatten(value)
    except ValueError as error:
        yield f"{name}: {error}"
        return
    if wanted.finite and any(one != one for one in flat):  # noqa: PLR0124 - only NaN differs from itself
        yield f"{name} expects NaN: add finite = false, if the model may answer NaN"


def _nan(value: Any) -> bool:
    return isinstance(value, float | complex) and cmath.isnan(value)


def _close(want: Any, got: Any, rtol: float, atol: float) -> bool:
    numbers = (int, float, complex)
    if isinstance(want, bool) or not isinstance(want, numbers) or not isinstance(got, numbers):
        return bool(type(want) is type(got) and want == got)
    # The rule of numpy.isclose: atol + rtol * |expected|.
    return want == got or (
        cmath.isfinite(want) and cmath.isfinite(got) and abs(got - want) <= atol + rtol * abs(want)
    )
