"""Messages as C++'s Message::DebugString prints them, for the error texts that quote one.

After google/protobuf/text_format.cc and strtod.cc: what is not ASCII is escaped, and numbers are as short as
printf's %g makes them, where Python writes 0.0 and 1000000.0.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

from google.protobuf import text_format

__all__ = ["debug_string"]

# Texts are on one line each, so nothing else looks like this. TensorProto has the only decimals there are.
_DECIMAL = re.compile(r"^( *(float|double|scomplex|dcomplex)_val: )(.+)$", re.MULTILINE)
SINGLE = ("float", "scomplex")


def debug_string(message: Any) -> str:
    """Return the text, with a line end after each field."""
    return _DECIMAL.sub(_in_cpp, text_format.MessageToString(message, as_utf8=False))


def _in_cpp(line: re.Match[str]) -> str:
    field, kind, text = line.groups()
    value = float(text)
    if math.isfinite(value):
        parse = _float if kind in SINGLE else float
        few, many = (6, 9) if kind in SINGLE else (15, 17)
        value = parse(text)
        text = f"{value:.{few}g}"
        if parse(text) != value:
            text = f"{value:.{many}g}"
    return f"{field}{text}"


def _float(text: str) -> float:
    return float(struct.unpack("<f", struct.pack("<f", float(text)))[0])
