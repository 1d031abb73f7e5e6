"""JSON has the very characters of the real server."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.embedded.json_reader import read_document
from servingrepo.embedded.json_writer import (
    PrettyWriter,
    debug_text,
    decimal_text,
    quoted,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.5, "2.5"),
        (3.0, "3.0"),
        (-0.0, "-0.0"),
        (9_000_000.0, "9e+06"),
        (123_456.0, "123456.0"),
        (1_234_567.0, "1234567.0"),
        (0.2, "0.2"),
        (1 / 3, "0.333333343"),
        (3e-5, "3e-05"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (math.inf, "Infinity"),
    ],
)
def test_decimal_of_a_float(value: float, text: str) -> None:
    (single,) = struct.unpack("<f", struct.pack("<f", value))
    assert decimal_text(single, single=True) == text


def test_decimal_of_a_double_with_many_digits() -> None:
    assert decimal_text(1 / 3, single=False) == "0.33333333333333331"


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_decimal_of_a_float_gives_the_float_back(value: float) -> None:
    again = float(decimal_text(value, single=True))
    assert struct.pack("<f", again) == struct.pack("<f", value)


@given(st.text())
def test_quoted_is_json(text: str) -> None:
    assert json.loads(quoted(text)) == text


def test_quoted_escapes_control_characters_only() -> None:
    assert quoted('\x1f\n"\\/ü') == '"\\u001F\\n\\"\\\\/ü"'


def test_writer_indents_but_keeps_flat_arrays_together() -> None:
    writer = PrettyWriter()
    writer.start("{")
    writer.raw('"a"')
    writer.start("[")
    writer.raws(["1", "2"])
    writer.end()
    writer.raw('"b"')
    writer.flat = True
    writer.start("[")
    writer.raw("1")
    writer.raw("2")
    writer.end()
    writer.end()
    assert writer.text == '{\n    "a": [\n        1,\n        2\n    ],\n    "b": [1, 2]\n}'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"instances": [1.0], "b": {}}', '{\n    "instances": [1.0],\n    "b": {}\n}'),
        (b"[null, true, false, 5, 5.5, 1e21, 1e-7, 0.000012, 1e20, -0.0]", None),
        # The event that passes 256 bytes is the last one.
        (b'["' + b"x" * 300 + b'", 1]', '["' + "x" * 300 + '"'),
        # rapidjson cannot write it, and stops.
        (b"[1, NaN, 2]", "[1, "),
        (b"NaN", ""),
    ],
)
def test_debug_text(body: bytes, text: str | None) -> None:
    expected = "[null, true, false, 5, 5.5, 1e21, 1e-7, 0.000012, 100000000000000000000.0, -0.0]"
    assert debug_text(read_document(body)) == (text if text is not None else expected)
