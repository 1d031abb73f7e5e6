"""Smoke cases: requests that a user knows to be good, and what is expected of their answers.

A case is an object in the form of TensorFlow Serving's REST API. Row form: `{"instances": [...]}`; column form:
`{"inputs": ...}`; for tf.Examples: `{"examples": [...], "context": {...}}`; each with an optional `signature_name`.
Bytes are `{"b64": "..."}`, and NaN and Infinity are allowed (http_rest_api_util.cc, json_tensor.cc). We add the
expected answer, as `predictions` (row form) or `outputs` (column form) within `rtol` and `atol`. Documents with a
schema number may also have a `name`, a `file` of data instead of the data, and `expect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from servingrepo.errors import BadCase
from servingrepo.smoke.expectations import ATOL, RTOL, Expected, read_expected

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SCHEMA", "Budget", "Document", "SmokeCase", "read_case", "read_document"]

SCHEMA = 1
"""The format of documents of cases. A document without a number has the form of the first releases."""

HINT = "the form is that of TensorFlow Serving's REST API: instances, inputs or examples"

_FORMS = ("instances", "inputs", "examples")
_EXPECTED = ("predictions", "outputs")
_KEYS = frozenset({"signature_name", "context", "rtol", "atol", *_FORMS, *_EXPECTED})
_MORE_KEYS = _KEYS | {"name", "file", "expect", "labels"}
_DOCUMENT_KEYS = frozenset({"schema", "cases", "budget"})


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most milliseconds that the answers to a document's cases may take, at the median and at the 99th percent.

    `document` is the document's name.
    """

    p50_ms: float | None = None
    p99_ms: float | None = None
    document: str = ""


class SmokeCase(msgspec.Struct, frozen=True, kw_only=True):
    """One request that a server must answer. `position` counts from 1 in the file.

    Attributes:
        file: The file, as it was given, or `MODULE:FUNCTION`.
        position: The number of the case in it.
        signature: The signature's key; empty for the one that takes tf.Examples.
        form: The form of `data`.
        data: JSON values. An input may also be an `Array` or a TensorProto, an example also a tf.Example message.
        context: Features for all examples.
        expected: The whole answer, as JSON values.
        expected_form: The form of `expected`.
        rtol: How far an answer may be from `expected`, relative to it.
        atol: How far it may be besides.
        name: Its name in reports.
        expect: Conditions on the answer.
        labels: The right label of each row, by output: an index of its argmax, or a value.
        budget: The budget of its document.
        problems: Why it cannot be sent; then `data` is of no use.
    """

    file: str
    position: int
    signature: str = "serving_default"
    form: Literal["instances", "inputs", "examples"] = "inputs"
    data: Any = None
    context: Any = None
    expected: Any = None
    expected_form: Literal["predictions", "outputs"] | None = None
    rtol: float = RTOL
    atol: float = ATOL
    name: str = ""
    expect: Expected | None = None
    labels: dict[str, list[int | str | bool]] = {}
    budget: Budget | None = None
    problems: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The place of the case, as reports show it."""
        named = f" ({self.name})" if self.name else ""
        return f"case {self.file}#{self.position}{named}"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document of cases: its objects, unread, and its budget. `strict`: one bad case makes the file unusable."""

    cases: list[Any]
    budget: Budget | None = None
    strict: bool = False


def read_document(value: Any, file: str) -> Document:
    """Return the cases of a document with a schema number, or of a bare object or list of objects.

    Raises:
        BadCase: It is no document of this format.
    """
    if not isinstance(value, dict) or "schema" not in value:
        listed = value if isinstance(value, list) else [value]
        if not listed:
            raise _unusable(file, [f"{file}: it holds no case"])
        return Document(cases=listed, strict=True)
    budget = read_header(value, file)
    cases = value.get("cases")
    if not isinstance(cases, list) or not cases:
        raise _unusable(file, [f"{file}: cases must be a list that is not empty"])
    return Document(cases=cases, budget=budget)


def read_header(value: Any, file: str) -> Budget | None:
    """Return the budget of a document, after a look at its schema number and its keys.

    Raises:
        BadCase: The number is another one, or there are unknown keys.
    """
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema != SCHEMA:
        raise BadCase(
            f"{file} says schema = {schema!r}, and this servingrepo reads schema {SCHEMA}",
            hint="it may be of a newer servingrepo: upgrade, or write it anew with smoke --write-cases",
        )
    problems = [
        f"{file}: unknown key {key!r}" for key in sorted(map(str, value.keys() - _DOCUMENT_KEYS))
    ]
    budget = None
    try:
        if "budget" in value:
            budget = msgspec.convert(value["budget"], Budget)
            if budget.document:
                problems.append(f"{file}: budget: unknown key 'document'")
            budget = msgspec.structs.replace(budget, document=file)
            if any(one is not None and not one > 0 for one in (budget.p50_ms, budget.p99_ms)):
                problems.append(f"{file}: budget: milliseconds must be above 0")
    except msgspec.ValidationError as error:
        problems.append(f"{file}: budget: {error}")
    if problems:
        raise _unusable(file, problems)
    return budget


def read_case(
    value: Any, *, file: str, position: int, document: Document, runs_code: bool
) -> SmokeCase:
    """Return one case of a document. What is wrong with it is in its `problems`.

    Args:
        value: The object.
        file: The document's name.
        position: The number of the case in it.
        document: The document.
        runs_code: Whether it may name a predicate: the caller named this file.
    """
    problems = _problems(value, _KEYS if document.strict else _MORE_KEYS)
    expect = None
    if isinstance(value, dict) and "expect" in value and not document.strict:
        try:
            expect = read_expected(value["expect"])
        except ValueError as error:
            problems.append(f"expect: {error}")
        if expect is not None and expect.predicate and not runs_code:
            problems.append(
                "a predicate is code, and runs only from a file that --case names, never from a run"
            )
    if problems:
        return SmokeCase(
            file=file,
            position=position,
            signature=_signature(value) if isinstance(value, dict) else "",
            name=_name(value),
            problems=tuple(problems),
        )
    form: Any = next((form for form in _FORMS if form in value), "inputs")
    expected: Any = next((form for form in _EXPECTED if form in value), None)
    return SmokeCase(
        file=file,
        position=position,
        signature=_signature(value),
        form=form,
        data=value.get(form),
        context=value.get("context"),
        expected=value.get(expected) if expected else None,
        expected_form=expected,
        rtol=value.get("rtol", RTOL),
        atol=value.get("atol", ATOL),
        name=_name(value),
        expect=expect,
        labels=value.get("labels", {}),
        budget=document.budget,
    )


def refuse_bad(file: str, cases: list[SmokeCase]) -> None:
    """Refuse a file if cases of it cannot be sent.

    Raises:
        BadCase: There are such cases; the error lists all problems.
    """
    problems = [f"{one.file}#{one.position}: {text}" for one in cases for text in one.problems]
    if problems:
        raise _unusable(file, problems)


def _unusable(file: str, problems: list[str]) -> BadCase:
    return BadCase(f"{file} is no valid file of smoke cases", hint=HINT, problems=problems)


def _signature(value: Mapping[str, Any]) -> str:
    # In prediction_service an empty signature_name means the default signature.
    named = value.get("signature_name")
    if isinstance(named, str) and named:
        return named
    return "" if "file" in value else "serving_default"


def _are_labels(value: Any) -> bool:
    try:
        msgspec.convert(value, dict[str, list[int | str | bool]])
    except msgspec.ValidationError:
        return False
    return True


def _name(value: Any) -> str:
    name = value.get("name", "") if isinstance(value, dict) else ""
    return name if isinstance(name, str) else ""


def _problems(value: Any, keys: frozenset[str]) -> list[str]:
    if not isinstance(value, dict):
        return [f"a case is an object, not {_kind(value)}"]
    unknown = value.keys() - keys
    problems = [f"unknown key {key!r}" for key in sorted(map(str, unknown))] if unknown else []
    possible = (*_FORMS, "file") if "file" in keys else _FORMS
    forms = [form for form in possible if form in value]
    if len(forms) != 1:
        found = " and ".join(forms) or "none"
        wanted = f"{', '.join(possible[:-1])} and {possible[-1]}"
        problems.append(f"exactly one of {wanted} is needed, found {found}")
    problems += [
        f"{form} must be a list that is not empty"
        for form in ("instances", "examples")
        if form in value and not (isinstance(value[form], list) and value[form])
    ]
    problems += [
        f"{key} must be a string"
        for key in ("signature_name", "name", "file")
        if not isinstance(value.get(key, ""), str)
    ]
    if not _are_labels(value.get("labels", {})):
        problems.append("labels must be an object with a list of labels for each output")
    if "context" in value and (forms != ["examples"] or not isinstance(value["context"], dict)):
        problems.append("context must be an object, beside examples")
    return problems + _expectation_problems(value)


def _expectation_problems(value: dict[str, Any]) -> list[str]:
    problems = []
    expected = [form for form in _EXPECTED if form in value]
    if len(expected) > 1:
        problems.append("give predictions or outputs, not both")
    if expected and "expect" in value:
        problems.append(f"give {expected[0]} or expect, not both")
    for name in sorted({"rtol", "atol"} & value.keys()):
        number = value[name]
        # `not number >= 0` refuses NaN too.
        if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
            problems.append(f"{name} must be a number that is not negative")
        elif not expected:
            problems.append(f"{name} is for predictions or outputs, which are not there")
    return problems


def _kind(value: Any) -> str:
    names = {str: "a string", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
