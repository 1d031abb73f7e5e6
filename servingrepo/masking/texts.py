"""Secrets in running text: `password=x`, `"token": "x"`, `--db-password x`, `curl -u me:x`, headers, netrc.

Text may come from strangers, so none of this takes longer than in proportion to its length: each search goes forward
only, and every expression is bounded or cannot match the same characters in two ways.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from typing import TYPE_CHECKING

from servingrepo.masking.names import hides, judge
from servingrepo.masking.programs import HEADERS, options_of, pair_masked, programs_in
from servingrepo.masking.shapes import MASK, mask_shapes, replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from servingrepo.masking.shapes import Span

__all__ = ["mask_text"]

_LONGEST_NAME = 256
_NEAR = 128
"""Characters that are read first: they show whether a value is a secret, and only a secret is read to its end."""
_LONG = 24


def mask_text(text: str) -> str:
    """Return a text for the record, without what is a secret or may be one."""
    text = mask_shapes(text)
    lowered = text.lower()
    if "=" in text or ":" in text or "<" in text:
        text = replaced(text, _assigned(text))
    if "-" in text:
        text = replaced(text, _of_options(text, options_of(programs_in(lowered))))
    if "bearer" in lowered or "basic" in lowered:
        text = re.compile(_SCHEMES).sub(_scheme, text)
    if "password" in lowered or "passwd" in lowered:
        text = re.compile(_NETRC).sub(rf"\1{MASK}", text)
    if "wandb" in lowered:
        text = re.compile(_LOGIN).sub(rf"\1{MASK}", text)
    return text


_SCHEMES = r"(?i)(?<![\w-])(bearer|basic)([ \t]{1,8})([\w.~+/=-]{8,})"
_NETRC = (
    r"(?i)((?<!\w)(?:machine|login|account)\s{1,16}\S{1,256}\s{1,16}(?:account\s{1,16}\S{1,256}\s{1,16})?"
    r"passw(?:or)?d\s{1,16})\S+"
)
_LOGIN = (
    r"(?i)((?<!\w)wandb[ \t]{1,8}login[ \t]{1,8}(?:--?[\w=-]{1,64}[ \t]{1,8}){0,4})[0-9a-z_]{32,}"
)


def _scheme(found: re.Match[str]) -> str:
    """Mask what is sent to a server after `Bearer` or `Basic`; "a basic implementation" is none."""
    scheme, gap, value = found.groups()
    if scheme.lower() == "basic":
        secret = _is_user_and_password(value)
    else:
        secret = any(map(str.isdecimal, value)) or (len(value) >= _LONG and not value.islower())
    return f"{scheme}{gap}{MASK}" if secret else found[0]


def _is_user_and_password(value: str) -> bool:
    try:
        return b":" in a2b_base64(value[:4096] + "=" * (-len(value[:4096]) % 4))
    except NotBase64:
        return False


# Names and what is assigned to them

_SIGN = r"""\\{0,4}["'`\]]{0,2}[ \t]{0,16}(?:=>|:=|={1,3}|:)[ \t]{0,16}|(?<=\w)>(?=[^<>\s])"""
_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.$-"
_OPENS = r"""[bBfFrRuU]{0,2}(\\{0,4})("{3}|'{3}|["'`])"""
_PLAIN = r"""(?:[^\s"'`,;&<]|[,;&](?![\w.-]{1,64}\s?[=:]|[\s"'{\[\\]|\Z)|["'`](?![\s,;:)\]}>&|"'`\\]|\Z))+"""
"""A value without quotes. What could end it is a part of it unless something else begins there."""
_AUTHORIZATION = (
    r"(?i)(?:(?:bearer|basic|digest|token|api-?key|key|negotiate|oauth|ntlm|ssws|geniekey)[ \t]{1,8})?"
    r"[^\s\"'`]+"
)
_LINE = r"""[^\r\n"'`]+"""
_BLOCK = r"[|>][+-]?\d?[ \t]{0,8}\r?\n(?:[ \t][^\n]*(?:\n|\Z))+"
"""A value of YAML on lines of its own."""
_WHOLE_LINE = frozenset({"cookie", "set-cookie"})


def _assigned(text: str) -> Iterator[Span]:
    """Yield what is assigned to the name of a secret: in code, settings, headers, queries and XML."""
    at = 0
    while (sign := re.compile(_SIGN).search(text, at)) is not None:
        at = sign.end()
        head = text[max(0, sign.start() - _LONGEST_NAME) : sign.start()]
        name = head[len(head.rstrip(_NAME)) :]
        begins = sign.start() - len(name)
        before = text[begins - 1] if begins else ""
        query = bool(before) and before in "?&" and sign[0] == "="
        if not name or judge(name, query=query) == "never":
            continue
        shown = _value(text, sign, name.lower().lstrip("-"), before, at + _NEAR)
        if shown is None:
            continue
        value, prose = text[slice(*shown)], sign[0] == ": "
        if hides(name, value, query=query, prose=prose):
            begin, end = _value(text, sign, name.lower().lstrip("-"), before, len(text)) or shown
            yield begin, end, MASK
            at = end


def _value(
    text: str, sign: re.Match[str], name: str, before: str, limit: int
) -> tuple[int, int] | None:
    """Return where a value begins and ends, at the limit at last; None if there is none."""
    at, written = sign.end(), sign[0].strip()
    if written == ">":  # <password>x</password>
        end = text.find("<", at, limit)
        return (at, end) if end > at else None
    if written == ":" and text.startswith("//", at):  # secret://projects/x names one, and is none
        return None
    if (quoted := _quoted(text, at, limit)) is not None:
        return quoted
    if (block := re.compile(_BLOCK).match(text, at, limit)) is not None:
        return block.span()
    if written == ":" and (before in {'"', "'", "`"} or name in _WHOLE_LINE):
        found = re.compile(_LINE).match(text, at, limit)  # a header in quotes ends where they do
    elif name.endswith("authorization"):
        found = re.compile(_AUTHORIZATION).match(text, at, limit)
    else:
        found = re.compile(_PLAIN).match(text, at, limit)
    return found.span() if found is not None else None


def _quoted(text: str, at: int, limit: int) -> tuple[int, int] | None:
    """Return where a value in quotes begins and ends, without them; None if there are none.

    It ends before the next quote that is as much escaped as the first, or at the limit.
    """
    opens = re.compile(_OPENS).match(text, at)
    if opens is None:
        return None
    slashes, quote = len(opens[1]), opens[2]
    begin = at = opens.end()
    while (end := text.find(quote, at, limit)) >= 0:
        escaped = end - len(text[max(begin, end - 8) : end].rstrip("\\")) - max(begin, end - 8)
        if (escaped == slashes) if slashes else (escaped % 2 == 0):
            return begin, end - escaped
        at = end + 1
    return begin, min(limit, len(text))


# Options of commands and what follows them

_OPTION = r"(?<![\w-])--?[A-Za-z][\w.-]{0,255}"
_GAP = (
    r"""\\{0,4}["'`]{1,3}\s{0,16},\s{0,16}(?=["'`\\])|"""
    r"[ \t]{0,16}\\?\r?\n[ \t]{0,64}(?:-[ \t]{1,8})?|[ \t]{1,16}|="
)
"""What may stand between an option and its value: a comma in a list, a new line, spaces."""
_NEXT = r"--?[A-Za-z]"
_NAMED = r"""(["'`]?)([\w-]{1,64})[ \t]{0,8}[:=][ \t]{0,8}(?!//)"""


def _of_options(text: str, known: Mapping[str, str]) -> Iterator[Span]:
    """Yield the secrets that options of commands get; `known` has the kinds of options whose names do not tell."""
    at = 0
    while (option := re.compile(_OPTION).search(text, at)) is not None:
        at = option.end()
        kind, shown = _given(text, option, known, at + _NEAR)
        if shown is None or not _is_given(kind, option[0], text[slice(*shown)]):
            continue
        begin, end = _given(text, option, known, len(text))[1] or shown
        yield begin, end, pair_masked(text[begin:end]) if kind == "pair" else MASK
        at = end


def _is_given(kind: str, option: str, value: str) -> bool:
    """Tell whether the value of an option is a secret."""
    if kind == "pair":
        return pair_masked(value) != value
    return kind == "whole" or hides(option, value)


def _given(
    text: str, option: re.Match[str], known: Mapping[str, str], limit: int
) -> tuple[str, tuple[int, int] | None]:
    """Return what kind of value an option has, and where that begins and ends, at the limit at last."""
    name = option[0]
    kind = known.get(name, "")
    if not kind and name[1] != "-" and known.get(name[:2], "header") != "header":
        found = re.compile(_PLAIN).match(text, option.start() + 2, limit)  # -pSECRET
        return known[name[:2]], found.span() if found is not None else None
    gap = re.compile(_GAP).match(text, option.end())
    if gap is None or (not kind and (judge(name) == "never" or gap[0] == "=")):
        return kind, None
    if kind == "header":
        return "whole", _header(text, gap.end(), limit)
    if re.compile(_NEXT).match(text, gap.end()):
        return kind, None
    quoted = _quoted(text, gap.end(), limit)
    found = re.compile(_PLAIN).match(text, gap.end(), limit) if quoted is None else None
    return kind, found.span() if found is not None else quoted


def _header(text: str, at: int, limit: int) -> tuple[int, int] | None:
    """Return where the value of a header begins and ends; None if there is none, or it is no secret's."""
    named = re.compile(_NAMED).match(text, at)
    if named is None or named[2].lower() in HEADERS:
        return None
    end = text.find(named[1], named.end(), limit) if named[1] else -1
    if end >= 0:
        return named.end(), end
    found = re.compile(_PLAIN).match(text, named.end(), limit)
    return found.span() if found is not None else None
