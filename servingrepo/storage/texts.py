"""Texts and paths that callers give: what cannot be written into a JSON file or named to the kernel is refused.

Python's text may hold lone surrogates (what it makes of bytes that are not UTF-8, PEP 383) and NUL. No JSON file
holds the one, no path of the kernel the other; better to hear of it before anything is done.
"""

from __future__ import annotations

import os
from pathlib import Path

from servingrepo.errors import UsageError

__all__ = ["as_path", "as_text"]


def as_text(text: str, what: str) -> str:
    """Return a text that goes into records as it is.

    Raises:
        UsageError: It has lone surrogates or NUL.
    """
    if "\0" in text:
        raise _refused(text, what, "it has a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refused(text, what, "it is not UTF-8 text") from error
    return text


def as_path(path: str | Path, what: str) -> Path:
    """Return a path that the kernel can be asked for; bytes that are not UTF-8 are allowed, as in any file name.

    Raises:
        UsageError: It has NUL, or surrogates that stand for no bytes.
    """
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise _refused(str(path), what, "it stands for no file name") from error
    if b"\0" in encoded:
        raise _refused(str(path), what, "it has a NUL character")
    return Path(path)


def _refused(text: str, what: str, why: str) -> UsageError:
    return UsageError(f"the {what} {text!a} cannot be used: {why}", hint=f"give another {what}")
