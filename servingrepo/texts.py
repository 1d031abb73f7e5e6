"""Texts and paths: which of a caller's can be used, and how a message lists many things.

Python's text may hold lone surrogates (what it makes of bytes that are not UTF-8, PEP 383) and NUL. No JSON file can
hold a lone surrogate, and no path of the kernel NUL. So what a caller says is refused before anything is done, and
what we find is escaped.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "as_path",
    "as_text",
    "escaped",
    "is_path",
    "plural",
    "printable",
    "refuse_url",
    "sized",
    "some",
]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


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
        UsageError: It has NUL, or surrogates that stand for no bytes, or is a URL.
    """
    refuse_url(path, what)
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise _refused(str(path), what, "it stands for no file name") from error
    if b"\0" in encoded:
        raise _refused(str(path), what, "it has a NUL character")
    return Path(path)


def is_path(subject: str | Path) -> bool:
    """Tell whether a subject is a path: a Path, or a text with a slash, `.` or `..`."""
    return isinstance(subject, Path) or "/" in subject or subject in {".", ".."}


def refuse_url(path: str | Path, what: str) -> None:
    """Refuse a URL where a path is meant: `s3://bucket/x` would be the directory `s3:` here.

    Raises:
        UsageError: It is one, or was one before it became a Path, which takes one of its slashes.
    """
    text = str(path)
    first, *rest = Path(path).parts or ("",)
    was_url = isinstance(path, Path) and rest and _SCHEME.fullmatch(first)
    if _URL.match(text) or (was_url and not os.path.lexists(first)):
        at = text.partition(":")[2].lstrip("/")
        hint = (
            f"give it as /{at}"
            if text.lower().startswith("file:")
            else "give a local path, or mount it"
        )
        raise UsageError(f"the {what} {text!a} is a URL, not a directory", hint=hint)


def plural(count: int, one: str, many: str) -> str:
    """Return "1 file is" or "2 files are"."""
    return f"{count} {one if count == 1 else many}"


def some(names: Sequence[str], *, most: int = 3) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def escaped(text: str) -> str:
    """Return text as JSON can hold it: what stands for bytes that are not UTF-8 (PEP 383) becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Return text without control characters, since names and messages may come from files of others."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\t" else one.encode("unicode_escape").decode()
        for one in text
    )


def sized(size: int) -> str:
    """Return a size as text, in units of 1000."""
    step, amount = 1000, float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < step:
            return f"{amount:.3g} {unit}"
        amount /= step
    return f"{amount:.3g} TB"


def _refused(text: str, what: str, why: str) -> UsageError:
    return UsageError(f"the {what} {text!a} cannot be used: {why}", hint=f"give another {what}")
