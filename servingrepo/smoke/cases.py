"""Smoke cases: data that a user knows to be good, in the JSON of TensorFlow Serving's REST API.

A file has one object or a list of objects. Row form: `{"instances": [...]}`; column form: `{"inputs": ...}`; for
tf.Examples: `{"examples": [...], "context": {...}}`; each with an optional `signature_name`. Bytes are
`{"b64": "..."}`, and NaN and Infinity are allowed (http_rest_api_util.cc, json_tensor.cc). We add the expected
answer, as `predictions` (row form) or `outputs` (column form), within `rtol` and `atol`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from servingrepo.errors import BadCase
from servingrepo.savedmodel.reading import Unreadable, read_bounded

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SmokeCase", "load_cases"]

FILE_LIMIT = 64 << 20
RTOL = 1e-4
ATOL = 1e-6

_FORMS = ("instances", "inputs", "examples")
_EXPECTED = ("predictions", "outputs")
_KEYS = frozenset({"signature_name", "context", "rtol", "atol", *_FORMS, *_EXPECTED})
_HINT = "the form is that of TensorFlow Serving's REST API: instances, inputs or examples"


class SmokeCase(msgspec.Struct, frozen=True, kw_only=True):
    """One request that a server must answer, as JSON values. `position` counts from 1 in the file."""

    file: str
    position: int
    signature: str
    form: Literal["instances", "inputs", "examples"]
    data: Any
    context: dict[str, Any] | None = None
    expected: Any = None
    expected_form: Literal["predictions", "outputs"] | None = None
    rtol: float = RTOL
    atol: float = ATOL

    @property
    def source(self) -> str:
        """The place of the case, as reports show it."""
        return f"case {self.file}#{self.position}"


def load_cases(path: Path) -> tuple[SmokeCase, ...]:
    """Read a file of smoke cases. `check_cases` then checks whether they fit a model.

    Raises:
        BadCase: The file cannot be read, is no JSON, or has other objects than cases. The error lists all problems.
    """
    try:
        content = json.loads(read_bounded(path, limit=FILE_LIMIT))
    except Unreadable as error:
        raise BadCase(f"{path}: {error}", hint="give a JSON file of smoke cases") from error
    except (ValueError, RecursionError) as error:
        raise BadCase(f"{path} is no JSON: {error}", hint=_HINT) from error
    listed = content if isinstance(content, list) else [content]
    problems = [
        f"{path}#{position}: {text}"
        for position, one in enumerate(listed, start=1)
        for text in _problems(one)
    ]
    if not listed:
        problems.append(f"{path}: it holds no case")
    if problems:
        raise BadCase(f"{path} is no valid file of smoke cases", hint=_HINT, problems=problems)
    return tuple(_case(str(path), position, one) for position, one in enumerate(listed, start=1))


def _problems(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return [f"a case is an object, not {_kind(value)}"]
    problems = [f"unknown key {key!r}" for key in sorted(value.keys() - _KEYS)]
    forms = [form for form in _FORMS if form in value]
    if len(forms) != 1:
        found = " and ".join(forms) or "none"
        problems.append(f"exactly one of instances, inputs and examples is needed, found {found}")
    problems += [
        f"{form} must be a list that is not empty"
        for form in ("instances", "examples")
        if form in value and not (isinstance(value[form], list) and value[form])
    ]
    if not isinstance(value.get("signature_name", ""), str):
        problems.append("signature_name must be a string")
    if "context" in value and (forms != ["examples"] or not isinstance(value["context"], dict)):
        problems.append("context must be an object, beside examples")
    return problems + _expectation_problems(value)


def _expectation_problems(value: dict[str, Any]) -> list[str]:
    problems = []
    expected = [form for form in _EXPECTED if form in value]
    if len(expected) > 1:
        problems.append("give predictions or outputs, not both")
    for name in sorted({"rtol", "atol"} & value.keys()):
        number = value[name]
        # `not number >= 0` refuses NaN too.
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            problems.append(f"{name} must be a number that is not negative")
        elif not expected:
            problems.append(f"{name} is for predictions or outputs, which are not there")
    return problems


def _case(file: str, position: int, value: dict[str, Any]) -> SmokeCase:
    form = next(form for form in _FORMS if form in value)
    expected = next((form for form in _EXPECTED if form in value), None)
    return msgspec.convert(
        {
            "file": file,
            "position": position,
            # In prediction_service an empty signature_name means the default signature.
            "signature": value.get("signature_name") or "serving_default",
            "form": form,
            "data": value[form],
            "context": value.get("context"),
            "expected": value.get(expected) if expected else None,
            "expected_form": expected,
            "rtol": value.get("rtol", RTOL),
            "atol": value.get("atol", ATOL),
        },
        SmokeCase,
    )


def _kind(value: Any) -> str:
    names = {str: "a string", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
