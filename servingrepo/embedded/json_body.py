"""The common part of the JSON bodies of REST requests: the document, base64, error texts.

After util/json_tensor.cc.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from servingrepo.embedded.json_reader import Json, member, read_document
from servingrepo.embedded.json_writer import debug_text
from servingrepo.embedded.status import Status, invalid

__all__ = ["decoded", "is_object", "json_type", "read_request", "valid_text", "wrong"]

SIGNATURE, BASE64 = "signature_name", "b64"
QUANTUM = 4
_PADDED = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")


def read_request(body: bytes, request: Any) -> Json | Status:
    """Return the body's object. Put its signature name into the request message."""
    document = read_document(body)
    if isinstance(document, Status):
        return document
    if not isinstance(document, tuple):
        return wrong(document, "Is not object")
    signature = member(document, SIGNATURE)
    if signature is not None:
        if not isinstance(signature[0], str):
            text = "not formatted correctly. 'signature_name' key must be a string value."
            return wrong(document, text)
        request.model_spec.signature_name = valid_text(signature[0])
    return document


def is_object(value: Json) -> bool:
    """Tell whether it is an object that is not a base64 one."""
    return isinstance(value, tuple) and not _is_base64(value)


def _is_base64(value: Json) -> bool:
    return len(value) == 1 and value[0][0] == BASE64 and isinstance(value[0][1], str)


def decoded(value: Json) -> bytes | Status:
    """Decode {"b64": …} as absl::Base64Unescape does: white space is skipped, and padding may be missing."""
    if not _is_base64(value):
        return wrong(value, "not formatted correctly for base64 data")
    match = _PADDED.fullmatch("".join(value[0][1].split()))
    if match is not None:
        data, padding = match.groups()
        needed = -len(data) % QUANTUM
        if needed < QUANTUM - 1 and len(padding) in (0, needed):
            return base64.b64decode(data + "=" * needed)
    return invalid("Unable to base64 decode")


def valid_text(text: str) -> str:
    """Return text that protobuf takes as a string."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def json_type(value: Json) -> str:
    """Return the name of a value's type in error texts."""
    names = {list: "Array", tuple: "Object", str: "String", bool: str(value), type(None): "Null"}
    return names.get(type(value), "Number")


def wrong(value: Json, text: str) -> Status:
    """Return an error that quotes the value."""
    return invalid(f"JSON Value: {debug_text(value)} {text}")
