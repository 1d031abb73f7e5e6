"""Makes texts of a message by chance: most of what text format allows, and much of what it nearly allows."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

INTEGERS = (
    *(
        "0",
        "1",
        "7",
        "42",
        "-1",
        "- 2",
        "-\n3",
        "-#\n4",
        "-0",
        "00",
        "007",
        "0123",
        "-010",
        "0x1F",
        "-0XfF",
    ),
    *("2147483647", "-2147483648", "4294967295", "9223372036854775807", "-9223372036854775808"),
    *(
        "2147483648",
        "4294967296",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
    ),
    *("0777777777777777777777", "01777777777777777777777", "02000000000000000000000"),
    *("0x7fffffffffffffff", "0xffffffffffffffff", "0x10000000000000000", "9" * 30, "0" * 30 + "7"),
)
NO_INTEGERS = (
    *(
        "+1",
        "1_000",
        "0o17",
        "0b1",
        "08",
        "-09",
        "00000189",
        "0x",
        "0xg",
        "1f",
        "1.0",
        "1e3",
        "1.",
        ".",
        "--1",
    ),
    *(
        "1a",
        "1.2.3",
        "\u0661\u0662",
        "\uff11",
        "1\u00b2",
        "0_1",
        "1L",
        "1'2'",
        "'1'",
        "true",
        "inf",
        "-",
        "- -1",
        "~1",
    ),
)
DECIMALS = (
    *INTEGERS[:15],
    *(
        "1.5",
        "-1.5",
        ".5",
        "-.5",
        "1.",
        "1.f",
        "1.5F",
        "3f",
        "1e5",
        "1E-5",
        "1e+5",
        "1.e5",
        "0e5",
        "0f",
        "1e999",
    ),
    *(
        "inf",
        "-inf",
        "Infinity",
        "nan",
        "-NaN",
        "- inf",
        "1e-999",
        "123456789012345678901234567890",
        "0.1",
        "00",
    ),
)
NO_DECIMALS = (
    *(
        "+1.5",
        "1_0.5",
        "1e",
        "1e+",
        "1ef",
        "1.5.5",
        "1..",
        "..5",
        "1.5ff",
        "1.5x",
        "0x1p3",
        "inff",
        "nanf",
        "infin",
    ),
    *("\u0661.5", "1,5", "08.5", "00.5", "0x1F.5", "0x1.8", "'1.5'", "true", "1.5e1.5", "--1.5"),
)
TRUTHS = ("true", "false", "True", "False", "t", "f", "1", "0", "01", "0x1", "00")
NO_TRUTHS = ("TRUE", "yes", "2", "-1", "- 1", "T", "tru", "'true'", "1.0", "truefalse", "08", "+1")
PIECES = (
    *(
        "",
        "a",
        "Z_9",
        " ",
        "\u00e4",
        "\u00a0",
        "\u3000",
        "\U0001f600",
        "#",
        "//",
        "{",
        "\t",
        "\r",
        "\x01",
        "\x7f",
    ),
    *(
        r"\a\b\f\n\r\t\v\\\?\'\"",
        r"\0",
        r"\07",
        r"\101",
        r"\1018",
        r"\377",
        r"\777",
        r"\x41",
        r"\x4",
        r"\x414",
    ),
    *(r"\u00e4", r"\U0001F600", r"\ud83d\ude00", r"\U0000d83d\ude00", r"\xc3\xa4", r"\303\244"),
)
BYTES = (
    rb"\xff",
    b"\xff",
    rb"\ud800",
    rb"\ud800\ud800",
    rb"\udc00\ud800",
    rb"\U00110000",
    rb"\U001fffff",
    b"\xc3",
)
NO_PIECES = (
    *(
        r"\_",
        r"\m",
        r"\8",
        r"\x",
        r"\xg",
        r"\u12",
        r"\u12g4",
        r"\U00200000",
        r"\U0001",
        r"\ ",
        "\\\u00e4",
    ),
    *("\n", "\x00", "\\\n", "'", '"', "\r\n"),
)
SPACE = (" ", "\n", "\t", "\r\n", "\v", "\f", "  ", "# c\n", "#\n", "#'\x01\u00a0\n", "\r")
NO_SPACE = (
    *(
        "\u00a0",
        "\u3000",
        "\u0085",
        "\u2028",
        "\ufeff",
        "\u200b",
        "\x1c",
        "\x01",
        "\x00",
        "\x7f",
        "\x08",
        "\x1f",
    ),
    *("// c\n", "/* c */", "\\", "\\\n", "- ", "#\x00\n", ";", ",", "$", "`", "\u1680"),
)
NO_NAMES = (
    "x",
    "1",
    "10",
    "'name'",
    "Name",
    "NAME",
    "name.",
    "na-me",
    "\u00f1ame",
    "n\u0430me",
    "[a.b]",
    "",
    "-",
    ".5",
)
ENUM_NAMES = ("NO_SUCH", "dt_float", "1a", "'DT_FLOAT'", "true", "+1", "99999999999")
ANYS = (
    "[type.googleapis.com/tensorflow.TensorShapeProto]",
    "[ type . googleprod.com / tensorflow.AttrValue ]:",
)
NO_ANYS = (
    *(
        "[type.googleapis.com/no.Such]",
        "[x.org/tensorflow.AttrValue]",
        "[tensorflow.AttrValue]",
        "[]",
    ),
    *(
        "[type.googleapis.com/tensorflow.AttrValue",
        "[type.googleapis.com/tensorflow/AttrValue]",
        "[/]",
    ),
)
OTHER_WORDS = (
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    ":",
    ",",
    ";",
    "''",
    "=",
    "(",
    "null",
    "- item",
    "%",
    "@",
)


class Maker:
    """Makes texts of a message type; `wrong` is how likely each choice is one that has to be refused."""

    def __init__(self, seed: int, *, wrong: float, without: Collection[str] = ()) -> None:
        self._random = random.Random(seed)  # noqa: S311 - texts, no secrets
        self._wrong = wrong
        self._without = without

    def text(self, descriptor: Any, *, before: bytes = b"", after: bytes = b"") -> bytes:
        """Return one text, `before` and `after` around its fields."""
        made = before + b"".join(self._fields(descriptor, depth=0)) + after
        if self._random.random() < self._wrong * 3:
            made = self._spoiled(made)
        return made

    def _is(self, chance: float) -> bool:
        return self._random.random() < chance

    def _one(self, right: Collection[str], wrong: Collection[str]) -> bytes:
        return self._random.choice(list(wrong if self._is(self._wrong) else right)).encode()

    def _space(self, *, needed: bool = False) -> bytes:
        if not needed and self._is(0.5):
            return b""
        if self._is(0.8):
            return b" "
        return self._one(SPACE, NO_SPACE)

    def _fields(self, descriptor: Any, *, depth: int) -> Iterator[bytes]:
        fields = [field for field in descriptor.fields if field.name not in self._without]
        used: set[str] = set()
        for _ in range(self._random.randint(0 if depth else 1, 4) if fields else 0):
            field = self._random.choice(fields)
            if descriptor.full_name == "google.protobuf.Any" and not used:
                used |= {"type_url", "value"}
                yield self._one(ANYS, NO_ANYS)
                yield b" { unknown_rank: true } " if self._is(self._wrong) else b" {} "
                continue
            group = field.containing_oneof.name if field.containing_oneof else field.name
            # In an entry of a map, releases differ in whether a default value counts as given.
            twice = not descriptor.GetOptions().map_entry and self._is(self._wrong * 5)
            if group in used and not _is_repeated(field) and not twice:
                continue
            used.add(group)
            yield from self._field(field, depth=depth)

    def _field(self, field: Any, *, depth: int) -> Iterator[bytes]:
        is_message = field.message_type is not None
        if is_message and depth > 6:
            return
        yield self._space()
        yield self._one([field.name], NO_NAMES)
        yield self._space()
        if is_message:
            yield self._one(["", ":"], ["::", "="])
        else:
            yield self._one([":"], ["", "=", "::", ":-"])
        yield self._space()
        if self._is(0.3 if _is_repeated(field) else self._wrong):
            yield b"["
            yield from self._listed(field, depth=depth)
            yield self._one(["]"], ["", ",]", "}", ";]"])
        else:
            yield from self._value(field, depth=depth)
        yield self._space()
        yield self._one([" ", "\n", ",", ";"], ["", ",,", ";,", "."])

    def _listed(self, field: Any, *, depth: int) -> Iterator[bytes]:
        for number in range(self._random.randint(0, 3)):
            if number:
                yield self._one([","], ["", ";", ",,", " "])
            yield self._space()
            yield from self._value(field, depth=depth)
            yield self._space()

    def _value(self, field: Any, *, depth: int) -> Iterator[bytes]:
        if self._is(self._wrong / 3):
            yield self._random.choice(OTHER_WORDS).encode()
        elif field.message_type is not None:
            opening, closing = self._random.choice([("{", "}"), ("<", ">")])
            yield self._one([opening], ["", "(", "[", "{{"])
            yield from self._fields(field.message_type, depth=depth + 1)
            yield self._space()
            yield self._one([closing], ["", ")", "]", "}", ">"])
        elif field.enum_type is not None:
            names = [value.name for value in field.enum_type.values]
            yield self._one(
                [*names, *(str(value.number) for value in field.enum_type.values), "77", "-7"],
                ENUM_NAMES,
            )
        elif field.cpp_type == field.CPPTYPE_STRING:
            yield from self._string(is_bytes=field.type == field.TYPE_BYTES)
        elif field.cpp_type == field.CPPTYPE_BOOL:
            yield self._one(TRUTHS, NO_TRUTHS)
        elif field.cpp_type in {field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE}:
            yield self._one(DECIMALS, NO_DECIMALS)
        else:
            yield self._one(INTEGERS[: self._random.choice([10, len(INTEGERS)])], NO_INTEGERS)

    def _string(self, *, is_bytes: bool) -> Iterator[bytes]:
        for number in range(self._random.choice([1, 1, 1, 2, 3])):
            if number:
                yield self._space()
            quote = self._random.choice(["'", '"'])
            yield quote.encode()
            for _ in range(self._random.randint(0, 3)):
                if self._is(0.3 if is_bytes else self._wrong / 3):
                    yield self._random.choice(BYTES)
                else:
                    yield self._one(PIECES, NO_PIECES)
            yield self._one([quote], ["", "\n", "'", '"'])

    def _spoiled(self, text: bytes) -> bytes:
        at = self._random.randint(0, len(text))
        other = self._random.choice(
            [*SPACE, *NO_SPACE, *OTHER_WORDS, *NO_INTEGERS, *NO_PIECES]
        ).encode()
        return text[:at] + other + text[at + self._random.choice([0, 0, 1, 2]) :]


def _is_repeated(field: Any) -> bool:
    # protobuf 7 has no label any more, and 5 no is_repeated.
    found = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if found is None else found)
