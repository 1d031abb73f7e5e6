"""A writer of JSON with the real server's indentation and number format.

After rapidjson 1.1.0's PrettyWriter and WriteDecimal in util/json_tensor.cc.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.embedded.json_reader import Json

__all__ = ["PrettyWriter", "as_single", "debug_text", "decimal_text", "is_double", "quoted"]

DEBUG_BYTES = 256  # kMaxJsonDebugStringBytes
INDENT = 4
INT64, UINT64 = 2**63, 2**64
_ESCAPES = {
    **{code: f"\\u{code:04X}" for code in range(0x20)},
    **{ord(one): f"\\{to}" for one, to in zip('\b\t\n\f\r"\\', 'btnfr"\\', strict=True)},
}
_SCIENTIFIC = re.compile(r"(-?)(\d)(?:\.(\d+))?e([+-]\d+)")
MOST_WHOLE_DIGITS, MOST_LEADING_ZEROS = 21, -6  # Prettify, rapidjson/internal/dtoa.h


def quoted(text: str) -> str:
    """Return a JSON string. It escapes control characters, quotes and backslashes only."""
    return f'"{text.translate(_ESCAPES)}"'


def decimal_text(value: float, *, single: bool) -> str:
    """Return a float (`single`) or double with six digits, or as many as it takes to read the same number again."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = f"{value:g}"
    again = as_single(float(text)) if single else float(text)
    if again != value:
        text = f"{value:.9g}" if single else f"{value:.17g}"
    return text if "." in text or "e" in text else f"{text}.0"


def is_double(value: Json) -> bool:
    """Tell whether the real server's parser reads this number as a double, as it does integers beyond 64 bits."""
    return isinstance(value, float) or (type(value) is int and not -INT64 <= value < UINT64)


class PrettyWriter:
    """Writes a JSON document event by event. After `flat`, array elements share a line."""

    def __init__(self) -> None:
        self.flat = False
        self._parts: list[str] = []
        self._levels: list[list[int]] = []  # [is an array, values so far]

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def start(self, bracket: str) -> None:
        """Begin an array or object."""
        self._prefix()
        self._parts.append(bracket)
        self._levels.append([bracket == "[", 0])

    def end(self) -> None:
        """End the innermost array or object."""
        is_array, count = self._levels.pop()
        if count and not (is_array and self.flat):
            self._parts.append("\n" + " " * (INDENT * len(self._levels)))
        self._parts.append("]" if is_array else "}")

    def raw(self, text: str) -> None:
        """Write a value in JSON, or a member's name."""
        self._prefix()
        self._parts.append(text)

    def raws(self, texts: Iterable[str]) -> None:
        """Write the elements of an array that has just begun, faster than one by one."""
        elements = list(texts)
        self._levels[-1][1] += len(elements)
        if self.flat:
            self._parts.append(", ".join(elements))
        else:
            line = "\n" + " " * (INDENT * len(self._levels))
            self._parts.append(",".join(line + one for one in elements))

    def _prefix(self) -> None:
        if not self._levels:
            return
        level = self._levels[-1]
        is_array, count = level
        indent = "\n" + " " * (INDENT * len(self._levels))
        if is_array:
            if count:
                self._parts.append(", " if self.flat else ",")
            if not self.flat:
                self._parts.append(indent)
        elif count % 2:
            self._parts.append(": ")
        else:
            self._parts.append("," + indent if count else indent)
        level[1] += 1


def debug_text(value: Json) -> str:
    """Return a value for an error text, cut after the event that passes 256 bytes."""
    writer = PrettyWriter()
    writer.flat = True
    _write(writer, value)
    return writer.text


def _write(writer: PrettyWriter, value: Json) -> bool:
    if not isinstance(value, (list, tuple)):
        return _event(writer, _scalar_text(value))
    if not _has_room(writer):
        return False
    writer.start("[" if isinstance(value, list) else "{")
    for one in value:
        if isinstance(value, tuple):
            name, content = one
            if not (_event(writer, quoted(name)) and _write(writer, content)):
                return False
        elif not _write(writer, one):
            return False
    if not _has_room(writer):
        return False
    writer.end()
    return True


def _event(writer: PrettyWriter, text: str | None) -> bool:
    if not _has_room(writer):
        return False
    # NaN and the infinities end the text, right before the value.
    writer.raw(text or "")
    return text is not None


def _has_room(writer: PrettyWriter) -> bool:
    return len(writer.text.encode(errors="surrogateescape")) < DEBUG_BYTES


def _scalar_text(value: Json) -> str | None:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    return _double_text(float(value)) if is_double(value) else str(value)


def _double_text(value: float) -> str | None:
    """Return the shortest digits in rapidjson's arrangement, or None for NaN and the infinities."""
    if not math.isfinite(value):
        return None
    match = _SCIENTIFIC.fullmatch(_shortest(value))
    if match is None:
        return repr(value)
    sign, first, rest, exponent = match.groups(default="")
    digits = (first + rest).rstrip("0") or "0"
    point = int(exponent) + 1
    if digits == "0":
        text = "0.0"
    elif len(digits) <= point <= MOST_WHOLE_DIGITS:
        text = f"{digits.ljust(point, '0')}.0"
    elif 0 < point <= MOST_WHOLE_DIGITS:
        text = f"{digits[:point]}.{digits[point:]}"
    elif MOST_LEADING_ZEROS < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
        text = f"{mantissa}e{point - 1}"
    return sign + text


def _shortest(value: float) -> str:
    text = repr(value)
    if "e" in text:
        return text
    digits = len(text.replace("-", "").replace(".", "").strip("0")) or 1
    return f"{value:.{digits - 1}e}"


def as_single(value: float) -> float:
    """Return a number rounded to a float of 32 bits."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
