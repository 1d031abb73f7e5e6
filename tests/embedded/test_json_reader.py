"""REST bodies are parsed as by rapidjson: values, tolerated mistakes, error texts and offsets."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.embedded import json_reader
from servingrepo.embedded.json_reader import member, read_document
from servingrepo.embedded.status import Status


def plain(value: Any) -> Any:
    """Return a value as Python's own parser would."""
    if isinstance(value, tuple):
        return {name: plain(one) for name, one in value}
    return [plain(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty"),
        (b"  ", "The document is empty. at offset: 2"),
        (b'{"instances": [1.0', "Missing a comma or ']' after an array element. at offset: 18"),
        (b'{"a": [1, ]}', "Invalid value. at offset: 10"),
        (b'{"a": [1}', "Missing a comma or ']' after an array element. at offset: 8"),
        (b'{"a": 1 "b"}', "Missing a comma or '}' after an object member. at offset: 8"),
        (b'{"a": 1,}', "Missing a name for object member. at offset: 8"),
        (b"{1: 2}", "Missing a name for object member. at offset: 1"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a": }', "Invalid value. at offset: 6"),
        (b'{"a": tru}', "Invalid value. at offset: 9"),
        (b'{"a": x}', "Invalid value. at offset: 6"),
        (b'{"a": -x}', "Invalid value. at offset: 7"),
        (b'{"a": 1.}', "Miss fraction part in number. at offset: 8"),
        (b'{"a": 1e}', "Miss exponent in number. at offset: 8"),
        (b'{"a": 1e400}', "Number too big to be stored in double. at offset: 6"),
        (b'{"a": "b', "Missing a closing quotation mark in string. at offset: 8"),
        (b'{"a": "\\x"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a": "\n"}', "Invalid escape character in string. at offset: 7"),
        (b'{"a": "\\u12g4"}', "Incorrect hex digit after \\u escape in string. at offset: 7"),
        (b'{"a": "\\ud800"}', "The surrogate pair in string is invalid. at offset: 7"),
        # Offsets count bytes.
        ('{"ü": }'.encode(), "Invalid value. at offset: 7"),
    ],
)
def test_read_what_is_no_json_says_what_and_where(body: bytes, text: str) -> None:
    status = read_document(body)
    assert isinstance(status, Status)
    assert str(status) == f"INVALID_ARGUMENT: JSON Parse error: {text}"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1} trailing text {', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": [Inf, -Infinity, Infinity, -Inf]}', {"a": [math.inf, -math.inf] * 2}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a": "\xff"}', {"a": "\udcff"}),
        (b'{"a": 1e123}', {"a": 1e123}),
        (b"5", 5),
    ],
)
def test_read_what_only_rapidjson_takes(body: bytes, value: Any) -> None:
    assert plain(read_document(body)) == value


def test_read_nan_with_any_sign_is_nan() -> None:
    first, second = plain(read_document(b"[NaN, -NaN]"))
    assert math.isnan(first)
    assert math.isnan(second)


def test_read_has_no_limit_of_depth() -> None:
    body = b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    assert isinstance(read_document(body), tuple)


def test_member_of_a_repeated_name_is_the_first() -> None:
    document = read_document(b'{"a": 1, "a": 2, "b": null}')
    assert member(document, "a") == (1,)
    assert member(document, "b") == (None,)
    assert member(document, "c") is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_both_readers_agree_on_what_python_writes(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).replace("\ud800", "")
    try:
        body = text.encode()
    except UnicodeEncodeError:
        return
    exact = json_reader._Reader(body.decode(), 0).read()
    assert plain(exact) == plain(read_document(body)) == value
