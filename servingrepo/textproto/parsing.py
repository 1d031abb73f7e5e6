"""Text format read into a message, taken and refused as protobuf's C++ library does, with every mistake's place.

After google/protobuf/text_format.cc (TextFormat::Parse) of protobuf 3.21 and 31; what only one of them takes is a
mistake here. Not done: extensions and groups, which no message that servingrepo reads has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from servingrepo.textproto.schema import new_message, schema_of
from servingrepo.textproto.tokens import (
    Token,
    broken,
    bytes_of,
    is_based,
    is_octal,
    number_of,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.textproto.schema import Field, Schema

__all__ = ["BadText", "Mistake", "Remark", "parse"]


class Mistake(msgspec.Struct, frozen=True):
    """One thing that TensorFlow Serving refuses; the first line and column are 1, and a column is a character."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        """Return it as compilers do, without the file's name."""
        return f"{self.line}:{self.column}: {self.message}"


class Remark(msgspec.Struct, frozen=True):
    """Text that is taken and may not be meant: an octal number, or a key of a map given twice (the last counts).

    `within` has the messages around the value, the whole first.
    """

    kind: Literal["octal", "repeated-key"]
    line: int
    column: int
    field: str
    written: str
    value: Any
    within: tuple[Any, ...]


class BadText(ValueError):
    """The text is not one of this message.

    `mistakes` has what could be found, in the text's order, and `more` how many beyond a screenful.
    `looks_like` names the other format that the text seems to be in, if any.
    """

    def __init__(self, mistakes: tuple[Mistake, ...], *, more: int, looks_like: str) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = mistakes
        self.more = more
        self.looks_like = looks_like


MOST_MISTAKES = 20
DEEPEST = 100
"""Messages in messages; what readers of the binary form allow. The C++ parser has no limit."""
_LONGEST_SHOWN = 60
_ANY = "google.protobuf.Any"
_ANY_PREFIXES = ("type.googleapis.com", "type.googleprod.com")
_RANGES = {
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
    "UINT32": (0, 2**32 - 1),
    "UINT64": (0, 2**64 - 1),
    "ENUM": (-(2**31), 2**31 - 1),
}
_TRUTHS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_STRINGS = {"string", "no_string", "open_string"}
# A document's begin, or an item of a list: neither begins a line of text format.
_YAML = re.compile(r"^(?:---\s*$|\s*- +[A-Za-z_]+:)", re.MULTILINE)
_BROKEN = {"no_string", "open_string", "no_number"}
_PASSED_OVER = {"control", "foreign"}
_WRONG = _BROKEN | _PASSED_OVER
_VALUES = {"word", "integer", "float", "no_number"}
_CLOSING = {"{": "}", "<": ">"}
_CLOSED = set(_CLOSING.values())
_SEPARATORS = {";", ","}


def parse(text: str, message: Any) -> tuple[Remark, ...]:
    """Read a text into an empty message; bytes that are not UTF-8 come as surrogates (PEP 383).

    Raises:
        BadText: protobuf's C++ library would refuse it, or a string has no place in Python: it is not UTF-8.
    """
    parser = _Parser(text)
    parser.run(message)
    if parser.mistakes:
        found = sorted(set(parser.mistakes))
        raise BadText(
            tuple(Mistake(*_place(text, at), message) for at, message in found[:MOST_MISTAKES]),
            more=len(found[MOST_MISTAKES:]),
            looks_like=_other_format(text),
        )
    return tuple(parser.remarks)


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


class _Stop(Exception):
    """Nobody can tell what the rest means."""


class _Parser:
    """One pass over the tokens; goes on after a mistake wherever it is clear where the next field begins."""

    def __init__(self, text: str) -> None:
        self.mistakes: list[tuple[int, str]] = []
        self.remarks: list[Remark] = []
        self._text = text
        self._tokens = tokens(text)
        self._schemas: dict[Any, Schema] = {}
        self._within: list[Any] = []
        self._in_entry: dict[int, set[str]] = {}
        self._depth = 0
        self._token = Token("end", "", len(text))
        self._advance()

    def run(self, message: Any) -> None:
        try:
            self._fields(message)
        except _Stop:
            while self._token.kind != "end":  # for what is wrong with the characters
                self._advance()

    def _advance(self) -> None:
        self._token = token = next(self._tokens, self._token)
        while token.kind in _WRONG:
            self.mistakes += broken(token)
            if token.kind not in _PASSED_OVER:
                break
            self._token = token = next(self._tokens)

    def _took(self, text: str) -> bool:
        if self._token.text != text:
            return False
        self._advance()
        return True

    def _expect(self, text: str) -> None:
        if not self._took(text):
            raise self._stop(f'"{text}"')

    def _note(self, token: Token, message: str) -> None:
        self.mistakes.append((token.start, message))

    def _stop(self, expected: str) -> _Stop:
        """Say what should have been here, unless something before it on this line was found wrong already."""
        begun = self._text.rfind("\n", 0, self._token.start)
        if not any(begun < at <= self._token.start for at, _ in self.mistakes):
            hint = "; a comment begins with #" if self._token.text == "/" else ""
            self._note(self._token, f"expected {expected}, found {_shown(self._token)}{hint}")
        return _Stop()

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            self._note(self._token, f"messages are nested more than {DEEPEST} deep")
            raise _Stop

    # Messages and fields --------------------------------------------------------------------------

    def _fields(self, message: Any, closing: str = "") -> None:
        descriptor = message.DESCRIPTOR
        schema = self._schemas.get(descriptor)
        if schema is None:
            schema = self._schemas[descriptor] = schema_of(message)
        self._within.append(message)
        while self._token.text not in _CLOSED if closing else self._token.kind != "end":
            self._field(message, schema)
        self._within.pop()

    def _message(self, message: Any) -> None:
        self._deeper()
        closing = self._opened()
        self._fields(message, closing)
        self._expect(closing)
        self._depth -= 1

    def _opened(self) -> str:
        closing = _CLOSING.get(self._token.text)
        if closing is None:
            raise self._stop('"{"')
        self._advance()
        return closing

    def _field(self, message: Any, schema: Schema) -> None:
        token = self._token
        if token.text == "[":
            self._any(message, schema)
            return
        if token.kind != "word":
            or_closing = ' or "}"' if self._depth else ""
            raise self._stop(f"the name of a field of {schema.name}{or_closing}")
        self._advance()
        field = schema.fields.get(token.text)
        if field is None:
            if token.text in schema.reserved:
                self._pass_field()
                return
            near = _near(token.text, schema.fields)
            self._note(token, f"{schema.name} has no field {token.text}{near}")
            self._pass_field()
        else:
            if not field.is_repeated:
                self._check_once(message, field, token)
            if not self._took(":") and field.kind != "MESSAGE":
                raise self._stop('":"')
            self._values(message, field)
        if self._token.text in _SEPARATORS:
            self._advance()

    def _check_once(self, message: Any, field: Field, token: Token) -> None:
        given = self._in_entry.get(id(message))
        if given is not None:
            # In an entry of a map protobuf 3.21 knows a default value from none, and 31 does not.
            if field.name in given:
                self._note(token, f"{field.name} is given twice")
            given.add(field.name)
        elif message.HasField(field.name) if field.has_presence else getattr(message, field.name):
            self._note(token, f"{field.name} is given twice")
        elif field.oneof and (other := message.WhichOneof(field.oneof)):
            self._note(token, f"{field.name} is given beside {other}; only one of them may be")

    def _values(self, message: Any, field: Field) -> None:
        if not (field.is_repeated and self._took("[")):
            self._value(message, field)
        elif not self._took("]"):
            self._value(message, field)
            while self._took(","):
                self._value(message, field)
            if not self._took("]"):
                raise self._stop('"," or "]"')

    def _value(self, message: Any, field: Field) -> None:
        if field.is_map:
            self._entry(getattr(message, field.name), field)
        elif field.kind == "MESSAGE":
            inner = getattr(message, field.name)
            if field.is_repeated:
                inner = inner.add()
            else:
                inner.SetInParent()
            self._message(inner)
        else:
            value = self._scalar(field)
            if value is None:
                return
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)

    def _entry(self, entries: Any, field: Field) -> None:
        token = self._token
        entry = entries.GetEntryClass()()
        self._in_entry[id(entry)] = set()
        self._message(entry)
        del self._in_entry[id(entry)]
        if entry.key in entries:
            self._remark("repeated-key", token, field, str(entry.key), entry.key)
        if hasattr(entry.value, "DESCRIPTOR"):
            entries[entry.key].CopyFrom(entry.value)
        else:
            entries[entry.key] = entry.value

    def _any(self, message: Any, schema: Schema) -> None:
        start = self._token
        self._advance()
        url = self._url()
        prefix, _, name = url.partition("/")
        inner = None
        if schema.full_name == _ANY and prefix in _ANY_PREFIXES:
            inner = new_message(schema.descriptor, name)
        if inner is None:
            self._note(start, f"[{url[:_LONGEST_SHOWN]}] is not known here")
            raise _Stop
        self._took(":")
        self._message(inner)
        if message.type_url or message.value:
            self._note(start, "the Any is given twice")
        if not inner.IsInitialized():
            self._note(start, f"{name} lacks fields that it must have")
            return
        message.type_url, message.value = url, inner.SerializeToString()

    def _url(self) -> str:
        url = ""
        while True:
            if self._token.kind != "word":
                raise self._stop("a type's name")
            url += self._token.text
            self._advance()
            if self._took("]"):
                return url
            if self._token.text not in {".", "/"}:
                raise self._stop('"]"')
            url += self._token.text
            self._advance()

    # Values ---------------------------------------------------------------------------------------

    def _scalar(self, field: Field) -> Any:
        """Return a value, or None for one that is wrong: noted then, and passed over."""
        match field.kind:
            case "STRING":
                return self._string(field)
            case "BOOL":
                return self._truth(field)
            case "FLOAT" | "DOUBLE":
                return self._decimal(field)
            case "ENUM":
                return self._enum(field)
            case _:
                return self._integer(field, "an integer")

    def _string(self, field: Field) -> str | bytes | None:
        first = self._token
        if first.kind not in _STRINGS:
            self._wrong(field, "a string in quotes")
            return None
        self._advance()
        inner = first.text[1:-1]
        is_plain = first.kind == "string" and inner.isascii() and "\\" not in inner
        if is_plain and self._token.kind not in _STRINGS:
            return inner.encode() if field.is_bytes else inner
        pieces = [bytes_of(first.text)] if first.kind == "string" else []
        while self._token.kind in _STRINGS:
            if self._token.kind == "string":
                pieces.append(bytes_of(self._token.text))
            self._advance()
        data = b"".join(pieces)
        if field.is_bytes:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            self._note(
                first, f"{field.name} is not UTF-8: it has the byte 0x{data[error.start]:02X}"
            )
            return None

    def _truth(self, field: Field) -> bool | None:
        token = self._token
        value = _TRUTHS.get(token.text) if token.kind == "word" else None
        if token.kind == "integer" and number_of(token.text) in {0, 1}:
            value = number_of(token.text) == 1
        if value is None:
            self._wrong(field, "true or false")
        else:
            self._advance()
        return value

    def _enum(self, field: Field) -> int | None:
        token = self._token
        if token.kind != "word":
            number = self._integer(field, "the name of a value")
            if number is None or not field.enum.is_closed or number in field.enum.values_by_number:
                return number
            self._note(token, f"{field.name} has no value {number}")
            return None
        self._advance()
        values = field.enum.values_by_name
        if token.text in values:
            return int(values[token.text].number)
        self._note(token, f"{field.name} has no value {token.text}{_near(token.text, values)}")
        return None

    def _integer(self, field: Field, expected: str) -> int | None:
        first = self._token
        lowest, highest = _RANGES[field.kind]
        sign = "-" if lowest and self._took("-") else ""
        token = self._token
        if token.kind != "integer":
            self._wrong(field, expected)
            return None
        self._advance()
        number = number_of(token.text)
        value = -number if sign else number
        if not lowest <= value <= highest:
            shown = _short(sign + token.text)
            self._note(
                first, f"{field.name} is out of range: {shown} is not in {lowest} … {highest}"
            )
            return None
        if is_octal(token.text) and number != int(token.text.lstrip("0") or "0"):
            self._remark("octal", first, field, sign + token.text, value)
        return value

    def _decimal(self, field: Field) -> float | None:
        is_negative = self._took("-")
        token = self._token
        if token.kind == "word" and token.text.lower() in {"inf", "infinity", "nan"}:
            number = float(token.text)
        elif token.kind == "float" or (token.kind == "integer" and not is_based(token.text)):
            number = float(token.text.rstrip("fF"))
        else:
            self._wrong(field, "a decimal number")
            return None
        self._advance()
        return -number if is_negative else number

    def _wrong(self, field: Field, expected: str) -> None:
        if self._token.kind not in _BROKEN:
            self._note(self._token, f"{field.name} has to be {expected}, not {_shown(self._token)}")
        self._took("+")
        self._pass_value()

    def _remark(
        self,
        kind: Literal["octal", "repeated-key"],
        token: Token,
        field: Field,
        written: str,
        value: Any,
    ) -> None:
        place = _place(self._text, token.start)
        self.remarks.append(Remark(kind, *place, field.name, written, value, tuple(self._within)))

    # What is passed over --------------------------------------------------------------------------

    def _pass_field(self) -> None:
        if self._took(":") or self._token.text == "[":
            self._pass_value()
        else:
            self._pass_message()

    def _pass_message(self) -> None:
        self._deeper()
        closing = self._opened()
        while self._token.text not in _CLOSED:
            if self._took("["):
                self._url()
            elif self._token.kind == "word":
                self._advance()
            else:
                raise self._stop("the name of a field")
            self._pass_field()
            if self._token.text in _SEPARATORS:
                self._advance()
        self._expect(closing)
        self._depth -= 1

    def _pass_value(self) -> None:
        if self._token.text in _CLOSING:
            self._pass_message()
        elif self._token.kind in _STRINGS:
            while self._token.kind in _STRINGS:
                self._advance()
        elif self._took("["):
            self._deeper()
            while not self._took("]"):
                self._pass_value()
                if not self._took(",") and self._token.text != "]":
                    raise self._stop('"," or "]"')
            self._depth -= 1
        else:
            self._took("-")
            if self._token.kind not in _VALUES:
                raise self._stop("a value")
            self._advance()


def _near(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(token: Token) -> str:
    return _short(token.text) if token.text else "the end of the text"


def _short(text: str) -> str:
    printable = text if text.isprintable() else ascii(text)
    return printable if len(printable) <= _LONGEST_SHOWN else f"{printable[:_LONGEST_SHOWN]}…"


def _other_format(text: str) -> str:
    """Return the name of the format that a text seems to be in; nothing for one that is not known."""
    if text.lstrip()[:1] in {"{", "["}:
        return "JSON"
    return "YAML" if _YAML.search(text) else ""
