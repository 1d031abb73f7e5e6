"""Write the requests of a smoke test as a document of cases, with what was answered if that is to be expected."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.errors import BadCase, UsageError
from servingrepo.smoke.cases import SCHEMA
from servingrepo.smoke.expectations import Expected, ExpectedError, ExpectedOutput
from servingrepo.smoke.tensors import FLOATING, Array, Tensor, read_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from servingrepo.smoke.cases import SmokeCase
    from servingrepo.smoke.fitting import Fitted
    from servingrepo.smoke.requests import Result

__all__ = ["Sink", "refuse_other_names"]

_FLOAT = struct.Struct("<f")
_LARGEST = 3.4028234663852886e38
"""The largest float32."""
LIMIT = 256 << 20
"""The most bytes of a document that is written."""


class Sink:
    """What takes the requests of a smoke test as they are answered.

    With `answers`, a case is not held against the answer that it expected before: the new one takes its place.
    """

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.count = 0
        self._lines: list[str] = []
        self._size = 0
        self._lacking: list[str] = []

    def to_judge(self, case: SmokeCase) -> SmokeCase:
        """Return a case without the values that it expects, if these are to be replaced."""
        if not self.answers:
            return case
        return msgspec.structs.replace(
            case,
            expected=None,
            expected_form=None,
            expect=_without_values(case.expect) if case.expect is not None else None,
        )

    def take(self, case: SmokeCase | None, fitted: Fitted, result: Result) -> None:
        """Take a request that was answered; `case` is None if its data were made up.

        Raises:
            BadCase: The document would be too long.
        """
        written: dict[str, Any] = {"name": case.name} if case is not None and case.name else {}
        written["signature_name"] = fitted.signature.key
        try:
            written |= _data(case, fitted)
        except ValueError as error:
            self.lack(f"{case.source if case is not None else fitted.signature.key}: {error}")
            return
        written |= self._expected(case, result)
        line = json.dumps(written, ensure_ascii=False)
        self._size += len(line)
        if self._size > LIMIT:
            raise BadCase(
                f"the document would have more than {LIMIT:,} bytes",
                hint="write fewer cases, or smaller ones",
            )
        self._lines.append(line)
        self.count += 1

    def lack(self, what: str) -> None:
        """Note a case that is missing in the document."""
        self._lacking.append(what)

    @property
    def lacking(self) -> tuple[str, ...]:
        """The cases that are missing in the document, because nothing answered them, and why."""
        return tuple(self._lacking)

    def document(self, name: str) -> bytes:
        """Return the document for a file of this name."""
        if name.endswith(".jsonl"):
            lines = [json.dumps({"schema": SCHEMA}), *self._lines]
            return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
        listed = ",\n    ".join(self._lines)
        text = f'{{\n  "schema": {SCHEMA},\n  "cases": [\n    {listed}\n  ]\n}}\n'
        return text.encode("utf-8", "surrogatepass")

    def _expected(self, case: SmokeCase | None, result: Result) -> dict[str, Any]:
        before = case.expect if case is not None else None
        if not self.answers:
            if case is None:
                return {}
            if case.expected_form is not None:
                tolerances = {"rtol": case.rtol, "atol": case.atol}
                return {case.expected_form: case.expected, **tolerances}
            return {"expect": msgspec.to_builtins(before)} if before is not None else {}
        if result.code:
            error = ExpectedError(code=result.code, text=result.text)
            kept = before.error if before is not None and before.error is not None else error
            return {"expect": msgspec.to_builtins(Expected(error=kept))}
        conditions = before.outputs if before is not None else {}
        outputs = {
            alias: _with_values(conditions.get(alias, ExpectedOutput()), tensor)
            for alias, tensor in result.outputs.items()
        }
        predicate = before.predicate if before is not None else ""
        return {"expect": msgspec.to_builtins(Expected(outputs=outputs, predicate=predicate))}


def refuse_other_names(path: Path) -> None:
    """Refuse a name of a document that is not JSON.

    Raises:
        UsageError: It ends otherwise.
    """
    if path.suffix not in {".json", ".jsonl"}:
        raise UsageError(
            f"cases are written as JSON, and {path} does not end in .json",
            hint="name it .json, or .jsonl for JSON Lines",
        )


def _without_values(expect: Expected) -> Expected:
    outputs = {
        alias: msgspec.structs.replace(one, equal=msgspec.UNSET, close=msgspec.UNSET)
        for alias, one in expect.outputs.items()
    }
    return msgspec.structs.replace(expect, outputs=outputs)


def _with_values(before: ExpectedOutput, tensor: Tensor) -> ExpectedOutput:
    """Return conditions with the values of an answer: floats are to be close, all others equal.

    Of values that JSON does not have, only dtype and shape are expected.
    """
    try:
        values = _nested(tensor)
    except ValueError:
        return msgspec.structs.replace(before, dtype=tensor.dtype, shape=list(tensor.shape))
    if tensor.dtype in FLOATING:
        finite = before.finite and all(map(math.isfinite, tensor.values))
        return msgspec.structs.replace(before, close=values, equal=msgspec.UNSET, finite=finite)
    return msgspec.structs.replace(before, equal=values, close=msgspec.UNSET)


def _data(case: SmokeCase | None, fitted: Fitted) -> dict[str, Any]:
    """Return the data of a request as JSON values.

    Raises:
        ValueError: JSON cannot hold them.
    """
    if case is not None and not _has_messages(case):
        context = {"context": case.context} if case.context is not None else {}
        return {case.form: case.data, **context}
    if fitted.examples:
        context = {"context": _features(fitted.context)} if fitted.context is not None else {}
        return {"examples": [_features(one) for one in fitted.examples], **context}
    return {"inputs": {alias: _nested(read_tensor(one)) for alias, one in fitted.inputs.items()}}


def _has_messages(case: SmokeCase) -> bool:
    """Tell whether the data of a case are no JSON values."""
    data = case.data
    values: Iterable[Any] = ()
    if isinstance(data, dict):
        values = data.values()
    elif isinstance(data, list):
        values = data
    plain = (dict, list, str, int, float, bool, type(None))
    return (
        isinstance(data, Array)
        or not all(isinstance(one, plain) for one in values)
        or not isinstance(case.context, dict | type(None))
    )


def _features(example: Any) -> dict[str, Any]:
    features: Mapping[str, Any] = example.features.feature
    return {key: _feature(features[key]) for key in sorted(features)}


def _feature(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    if kind is None:
        return []
    values = getattr(feature, kind).value
    if kind == "bytes_list":
        return [_text(one) for one in values]
    return [_short(one) for one in values] if kind == "float_list" else list(values)


def _nested(tensor: Tensor) -> Any:
    """Return a tensor's values as nested lists.

    Raises:
        ValueError: JSON has no such values.
    """
    values: list[Any]
    if tensor.dtype.startswith("complex"):
        raise ValueError(f"JSON has no {tensor.dtype}")
    if tensor.dtype == "string":
        values = [_text(one) for one in tensor.values]
    elif tensor.dtype == "float32":
        values = [_short(one) for one in tensor.values]
    else:
        values = list(tensor.values)
    for size in reversed(tensor.shape[1:]):
        if size == 0:
            raise ValueError(f"JSON cannot say the shape {list(tensor.shape)}")
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return values if tensor.shape else values[0]


def _short(value: float) -> float:
    """Return the shortest number that is the same float32: nine digits are enough (IEEE 754)."""
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= _LARGEST and _FLOAT.pack(short) == _FLOAT.pack(value):
            return short
    return value


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}
