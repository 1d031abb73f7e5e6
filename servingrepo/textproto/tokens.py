r"""The tokens of text format: words, numbers, strings and symbols, cut as protobuf's C++ library cuts them.

After google/protobuf/io/tokenizer.cc of protobuf 3.21, which TensorFlow Serving 2.19 links. The one of 31, which
TensorFlow 2.21 links, takes `\X` as well; what only one of the two takes is a mistake here. Python's own text format
is no judge: its white space is Unicode's, its numbers are Python's, and it lets unknown escapes pass.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Token", "broken", "bytes_of", "is_based", "is_octal", "number_of", "tokens"]

BYTE_ORDER_MARK = "\ufeff"
_HEX = "[0-9A-Fa-f]"
# What may follow a backslash; more digits of \x and of an octal number are read as part of it later.
_ESCAPE = rf"\\(?:[abfnrtv?\\'\"0-7]|x{_HEX}|u{_HEX}{{4}}|U00[01]{_HEX}{{5}})"
_BACKSLASH = re.compile(rf"{_ESCAPE}|\\(?P<wrong>.)")
_NEEDS = {
    "x": "needs a hexadecimal digit after it",
    "u": "needs four hexadecimal digits after it",
    "U": "needs eight hexadecimal digits after it, up to 0010FFFF",
}
# A number ends where no letter, digit or point could go on.
_END = r"(?![A-Za-z0-9_.])"
_TOKEN = re.compile(
    rf"""(?:[ \t\n\r\v\f]++|\#[^\n\0]*+)*+
    (?:(?P<word>[A-Za-z_][A-Za-z0-9_]*+)
    |(?P<string>"(?:[^"\\\n\0]|{_ESCAPE})*+"|'(?:[^'\\\n\0]|{_ESCAPE})*+')
    |(?P<integer>(?:0[xX]{_HEX}++|0[0-7]++|0|[1-9][0-9]*+){_END})
    |(?P<float>(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?{_END})
    |(?P<no_string>"(?:[^"\\\n\0]|\\[^\n\0])*+"|'(?:[^'\\\n\0]|\\[^\n\0])*+')
    |(?P<open_string>["'](?:[^\\\n\0]|\\[^\n\0])*+\\?)
    |(?P<no_number>\.?[0-9][A-Za-z0-9_.]*+)
    |(?P<control>[\0-\x1f\x7f]++)
    |(?P<foreign>[^\0-\x7f]++)
    |(?P<symbol>.)
    |\Z)""",
    re.VERBOSE,
)
_KINDS = ("", *_TOKEN.groupindex)
"""The kinds by the numbers of their groups, from 1 on: none of the groups has another one in it."""
_UNICODE = r"u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})"
_ESCAPED = re.compile(
    rf"\\(?:([0-7]{{1,3}})|x({_HEX}{{1,2}})|(?:{_UNICODE})(?:\\u([dD][c-fC-F]{_HEX}{{2}}))?|(.))".encode()
)
_LETTERS = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))
_LONGEST_SHOWN = 60


class Token(msgspec.Struct, frozen=True):
    """A piece of the text and where it begins; the end of the text is a token without text."""

    kind: str
    text: str
    start: int


def tokens(text: str) -> Iterator[Token]:
    """Yield every token, the end of the text last; `broken` says what is wrong with those that are none."""
    for match in _TOKEN.finditer(text):
        group = match.lastindex
        if group is None:
            break
        yield Token(_KINDS[group], match[group], match.start(group))
    yield Token("end", "", len(text))


def broken(token: Token) -> Iterator[tuple[int, str]]:
    """Yield where a token breaks the rules and how; nothing for one that keeps them."""
    text, start = token.text, token.start
    match token.kind:
        case "no_string":
            yield from _wrong_escapes(text, start)
        case "open_string":
            yield from _wrong_escapes(text, start)
            yield start, r"the string does not end on its line; a line end in it is written \n"
        case "no_number":
            yield start, _why_no_number(text)
        case "control" | "foreign":
            yield start, _why_no_character(text[0], is_first=start == 0)


def is_based(text: str) -> bool:
    """Say whether an integer token is octal or hexadecimal."""
    return len(text) > 1 and text[0] == "0"


def is_octal(text: str) -> bool:
    """Say whether an integer token is octal."""
    return is_based(text) and text[1] not in "xX"


def number_of(text: str) -> int:
    """Return what an integer token stands for: octal after a 0, hexadecimal after 0x."""
    if text[:2] in {"0x", "0X"}:
        return int(text, 16)
    if text[0] == "0":
        return int(text, 8)
    # Python reads no more than some thousand digits, and no field holds more than twenty.
    return int(text) if len(text) <= len(str(2**64)) else 2**64


def bytes_of(text: str) -> bytes:
    """Return what a string token stands for, escapes resolved."""
    inner = text[1:-1]
    try:
        data = inner.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        data = inner.encode(errors="surrogatepass")
    return _ESCAPED.sub(_unescaped, data) if b"\\" in data else data


def _unescaped(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short, long, trail, letter = match.groups()
    if letter is not None:
        return bytes([_LETTERS.get(letter[0], letter[0])])
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    point = int(short or long, 16)
    if trail is None:
        return _utf8(point)
    second = int(trail, 16)
    if 0xD800 <= point < 0xDC00:  # noqa: PLR2004 - the first half of a UTF-16 pair
        return _utf8(0x10000 + ((point - 0xD800) << 10) + (second - 0xDC00))
    return _utf8(point) + _utf8(second)


def _utf8(point: int) -> bytes:
    # Up to 1FFFFF is taken, and what is above the last code point stays as it was written.
    return (
        chr(point).encode(errors="surrogatepass") if point <= 0x10FFFF else b"\\U%08x" % point  # noqa: PLR2004
    )


def _wrong_escapes(text: str, start: int) -> Iterator[tuple[int, str]]:
    for match in _BACKSLASH.finditer(text):
        letter = match["wrong"]
        if letter is not None:
            shown = letter if letter.isprintable() else ascii(letter)[1:-1]
            why = _NEEDS.get(letter, r"is no escape; a backslash itself is written \\")
            yield start + match.start(), f"\\{shown} {why}"


def _why_no_number(text: str) -> str:
    shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    if text.isdecimal():
        plain = text.lstrip("0")[:_LONGEST_SHOWN]
        return f"{shown} is octal, as it starts with 0, and octal has no 8 and 9; write {plain}"
    return f"{shown} is no number; write it with digits only, such as 1000"


def _why_no_character(character: str, *, is_first: bool = False) -> str:
    code = ord(character)
    if character == BYTE_ORDER_MARK and is_first:
        return "the text begins with a byte order mark (U+FEFF); save it as UTF-8 without one"
    if 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - what Python makes of bytes that are not UTF-8
        return f"the byte 0x{code - 0xDC00:02X} is not allowed outside of quotes and comments"
    name = unicodedata.name(character, "")
    named = f"U+{code:04X}{' ' if name else ''}{name}"
    return f"the character {named} is not allowed outside of quotes and comments"
