"""A parser for the JSON of REST requests, with the real server's error texts and offsets.

After rapidjson 1.1.0's iterative reader with kParseNanAndInfFlag and kParseStopWhenDoneFlag (util/json_tensor.cc):
it ignores bytes after the document, reads NaN and Infinity as numbers, and lets bytes through that are not UTF-8.
Python's parser is ten times faster, so it goes first. The exact parser reads what Python's refuses or may read
otherwise.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from servingrepo.embedded.status import Status, invalid

__all__ = ["Json", "member", "read_document"]

Json = Any
"""None, bool, int, float, str, a list, or for an object a tuple of (name, value) pairs in their order."""

# Escaped surrogates, and numbers that may not fit a double: Python accepts more of both.
_DELICATE = re.compile(rb"\\u[dD][89a-fA-F]|[0-9][eE]\+?[0-9]{3}|[0-9]{300}")
_LENIENT = json.JSONDecoder(object_pairs_hook=tuple)
_SPACE = re.compile(r"[ \n\r\t]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_SPECIAL = re.compile(r"-?(?:NaN|Inf(?:inity)?)")
_DIGITS = re.compile(r"[0-9]+")
_HEX = re.compile(r"[0-9A-Fa-f]{4}")
_ESCAPES = dict(zip('"\\/bfnrt', '"\\/\b\f\n\r\t', strict=True))
_LITERALS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}
DEEPEST = 100_000
HIGH, LOW, END_OF_SURROGATES = 0xD800, 0xDC00, 0xE000


def read_document(body: bytes) -> Json | Status:
    """Return the first JSON document of a body.

    Raises:
        RecursionError: It is deeper than any tensor can be.
    """
    if not body:
        return invalid("JSON Parse error: The document is empty")
    # Bytes that are not UTF-8 become lone surrogates here, and the same bytes again in the answer.
    text = body.decode(errors="surrogateescape")
    start = 1 if text.startswith("\ufeff") else 0
    if not _DELICATE.search(body):
        try:
            value, _ = _LENIENT.raw_decode(text, _skip(text, start))
        except (ValueError, RecursionError):
            pass
        else:
            return value
    reader = _Reader(text, start)
    try:
        return reader.read()
    except _WrongError as error:
        offset = len(text[: error.position].encode(errors="surrogateescape"))
        return invalid(f"JSON Parse error: {error.text} at offset: {offset}")


def member(value: Json, name: str) -> tuple[Json] | None:
    """Return a tuple of an object's first member of that name, or None."""
    return next(((found,) for key, found in value if key == name), None)


class _WrongError(Exception):
    def __init__(self, text: str, position: int) -> None:
        super().__init__(text)
        self.text = text
        self.position = position


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return position if found is None else found.end()


# The reader's states, each with the error for a character that has no place in it.
START, ARRAY, ELEMENT, NEXT_ELEMENT = "start", "array", "element", "next element"
OBJECT, NAME, VALUE, MEMBER, NEXT_MEMBER = "object", "name", "value", "member", "next member"
_MISPLACED = {
    START: "The document is empty.",
    ARRAY: "Invalid value.",
    ELEMENT: "Missing a comma or ']' after an array element.",
    NEXT_ELEMENT: "Invalid value.",
    OBJECT: "Missing a name for object member.",
    NAME: "Missing a colon after a name of object member.",
    VALUE: "Invalid value.",
    MEMBER: "Missing a comma or '}' after an object member.",
    NEXT_MEMBER: "Missing a name for object member.",
}
_WANTS_VALUE = (START, ARRAY, NEXT_ELEMENT, VALUE)
# The next state after a character that does not begin a value.
_STEPS = {(ELEMENT, ","): NEXT_ELEMENT, (NAME, ":"): VALUE, (MEMBER, ","): NEXT_MEMBER}
_CLOSES = {(ARRAY, "]"), (ELEMENT, "]"), (OBJECT, "}"), (MEMBER, "}")}


class _Reader:
    """The exact parser: a state machine without recursion, so that depth costs only memory."""

    def __init__(self, text: str, position: int) -> None:
        self._text = text
        self._at = position
        self._open: list[tuple[str, list[Any], str]] = []
        self._items: list[Any] = []
        self._name = ""

    def read(self) -> Json:
        state = START
        while True:
            self._at = _skip(self._text, self._at)
            character = self._peek()
            if character in ("", "\0"):
                self._fail(_MISPLACED[state])
            if (state, character) in _STEPS:
                self._at += 1
                state = _STEPS[state, character]
            elif (state, character) in _CLOSES:
                self._at += 1
                value: Json = self._items if character == "]" else tuple(self._items)
                state, self._items, self._name = self._open.pop()
                if state == START:
                    return value
                state = self._add(state, value)
            elif state in (OBJECT, NEXT_MEMBER) and character == '"':
                self._name = self._string()
                state = NAME
            elif state in _WANTS_VALUE and character in "[{":
                state = self._enter(state, character)
            elif state in _WANTS_VALUE and character not in "]},:":
                value = self._scalar(character)
                if state == START:
                    return value
                state = self._add(state, value)
            else:
                self._fail(_MISPLACED[state])

    def _enter(self, state: str, character: str) -> str:
        if len(self._open) == DEEPEST:
            raise RecursionError
        self._at += 1
        self._open.append((state, self._items, self._name))
        self._items = []
        return ARRAY if character == "[" else OBJECT

    def _add(self, state: str, value: Json) -> str:
        if state == VALUE:
            self._items.append((self._name, value))
            return MEMBER
        self._items.append(value)
        return ELEMENT

    def _scalar(self, character: str) -> Json:
        if character == '"':
            return self._string()
        if character in _LITERALS:
            literal, value = _LITERALS[character]
            for expected in literal:
                if self._peek() != expected:
                    self._fail("Invalid value.")
                self._at += 1
            return value
        return self._number()

    def _number(self) -> int | float:
        start = self._at
        special = _SPECIAL.match(self._text, start)
        if special is not None:
            self._at = special.end()
            if special[0].endswith("Inf") and self._peek() == "i":
                self._fail("Invalid value.")
            return float(special[0])
        whole = _INTEGER.match(self._text, start)
        if whole is None:
            self._at += self._peek() == "-"
            self._fail("Invalid value.")
        self._at = whole.end()
        is_whole = True
        if self._peek() == ".":
            self._at += 1
            self._digits("Miss fraction part in number.")
            is_whole = False
        if self._peek() in ("e", "E"):
            self._at += 1
            self._at += self._peek() in ("+", "-")
            self._digits("Miss exponent in number.")
            is_whole = False
        text = self._text[start : self._at]
        value = float(text)
        if value in (float("inf"), float("-inf")):
            self._fail("Number too big to be stored in double.", start)
        # A number of 300 digits is no integer that anything here could hold.
        return int(text) if is_whole and len(text) < 300 else value  # noqa: PLR2004 - said above

    def _digits(self, missing: str) -> None:
        found = _DIGITS.match(self._text, self._at)
        if found is None:
            self._fail(missing)
        self._at = found.end()

    def _string(self) -> str:
        self._at += 1
        parts: list[str] = []
        while True:
            plain = _PLAIN.match(self._text, self._at)
            if plain is not None:
                parts.append(plain[0])
                self._at = plain.end()
            match self._peek():
                case '"':
                    self._at += 1
                    return "".join(parts)
                case "\\":
                    parts.append(self._escape())
                case "" | "\0":
                    self._fail("Missing a closing quotation mark in string.")
                case _:
                    self._fail("Invalid escape character in string.")

    def _escape(self) -> str:
        start = self._at
        self._at += 1
        character = self._peek()
        self._at += 1
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character != "u":
            self._fail("Invalid escape character in string.", start)
        code = self._hex(start)
        if HIGH <= code < LOW:
            if self._text[self._at : self._at + 2] != "\\u":
                self._fail("The surrogate pair in string is invalid.", start)
            self._at += 2
            low = self._hex(start)
            if not LOW <= low < END_OF_SURROGATES:
                self._fail("The surrogate pair in string is invalid.", start)
            code = 0x10000 + ((code - HIGH) << 10) + (low - LOW)
        elif LOW <= code < END_OF_SURROGATES:
            # A lone surrogate is written as three bytes that are not UTF-8.
            return chr(code).encode(errors="surrogatepass").decode(errors="surrogateescape")
        return chr(code)

    def _hex(self, start: int) -> int:
        found = _HEX.match(self._text, self._at)
        if found is None:
            self._fail("Incorrect hex digit after \\u escape in string.", start)
        self._at = found.end()
        return int(found[0], 16)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _fail(self, text: str, position: int | None = None) -> NoReturn:
        raise _WrongError(text, self._at if position is None else position)
