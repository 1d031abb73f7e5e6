"""Model names, labels and version numbers: the allowed ones, and how TensorFlow Serving reads a name.

Pure rules over text; nothing here knows a config, a disk or a server.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from servingrepo.errors import BadName, BadVersionNumber

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "CONFIG_FILE",
    "MAX_NAME_BYTES",
    "MAX_VERSION",
    "check_label",
    "check_name",
    "check_path",
    "is_label",
    "is_model_name",
    "names_by_version",
    "parse_version",
    "version_of_entry",
    "why_not_a_path",
]

CONFIG_FILE = "models.config"
"""The config's name beside the models' directories, so no model may have it."""

MAX_NAME_BYTES = 128
MAX_VERSION = 2**63 - 1
"""TensorFlow Serving's version numbers are int64 (core/servable_id.h)."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_LABEL = re.compile(r"[A-Za-z0-9_]+")
_NOT_IN_LABEL = re.compile(r"[^A-Za-z0-9_]+")
_INT64_TEXT = re.compile(r"[+-]?[0-9]+")
_ASCII_SPACE = " \t\n\v\f\r"
_SAFE_DIGITS = 18  # every number of so many digits is an int64
_MAX_DIGITS = (
    400  # int() refuses very long digit strings; no directory name is longer than 255 bytes
)


def is_model_name(name: str) -> bool:
    """Tell whether a model may have this name: `check_name` would not raise."""
    return _why_not_a_name(name) is None


def check_name(name: str) -> str:
    """Return the model name as it is.

    A name is a directory, a part of a URL (`/v1/models/NAME:predict`) and of our own file names, so it is
    `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 128 bytes, not an integer, not `models.config`, and does not end
    in `.json`.

    Raises:
        BadName: It is something else; the message says why and the hint proposes a name.
    """
    why = _why_not_a_name(name)
    if why is None:
        return name
    raise BadName(f"not a model name: {_shown(name)}: {why}", hint=f"try {_proposed_name(name)}")


def check_path(path: str) -> str:
    """Return a model's path below the models directory as it is.

    Raises:
        BadName: It is no such path; the message says why.
    """
    why = why_not_a_path(path)
    if why is None:
        return path
    raise BadName(
        f"not a model's path: {_shown(path)}: {why}",
        hint="a path is the model's folder, relative to the models directory, such as push/ranker",
    )


def why_not_a_path(path: str) -> str | None:
    """Say why a model's folder cannot have this path below the models directory; None if it can.

    TensorFlow Serving takes a folder with an integer for its name as a version of the folder above it. Names with a
    dot before them are ours.
    """
    if path.startswith("/"):
        return "it is not relative"
    for part in path.split("/"):
        if not part:
            return "it is empty, or a part of it is"
        if part.startswith("."):
            return f"{_shown(part)} begins with a dot"
        if version_of_entry(part) is not None:
            return f"TensorFlow Serving takes {_shown(part)} for a version"
        if not part.isprintable():
            return "it has a character that cannot be shown"
    return "it is the config file's" if path.split("/", maxsplit=1)[0] == CONFIG_FILE else None


def is_label(label: str) -> bool:
    """Tell whether a version may have this label: `check_label` would not raise."""
    return _why_not_a_label(label) is None


def check_label(label: str) -> str:
    """Return the version label as it is.

    Labels are `[a-zA-Z0-9_]+` as TensorFlow Serving documents them (g3doc/serving_config.md); its server
    takes any text, but its REST addresses do not reach every label. At most 128 bytes.

    Raises:
        BadName: It is something else; the message says why and the hint proposes a label.
    """
    why = _why_not_a_label(label)
    if why is None:
        return label
    proposed = _NOT_IN_LABEL.sub("_", label).strip("_")[:MAX_NAME_BYTES] or "stable"
    raise BadName(f"not a version label: {_shown(label)}: {why}", hint=f"try {proposed}")


def parse_version(text: str) -> int:
    """Read a version number: a positive int64 in its plain decimal form, so that number and name are one.

    Raises:
        BadVersionNumber: It is something else, or the same number written in another way.
    """
    for message, hint in _objections_to_version(text):
        raise BadVersionNumber(f"not a version number: {_shown(text)}: {message}", hint=hint)
    return int(text)


def version_of_entry(name: str) -> int | None:
    """Return the number that TensorFlow Serving reads from a directory entry's name, None if it reads none.

    Any child of a base path whose whole name, after trimming ASCII whitespace, is a base-10 int64 with an
    optional sign is a version to it, whatever the child is: `007`, `-1` and ` 5` are; out of range is not.
    `+1` is one from release 2.19 on (file_system_storage_path_source.cc).
    """
    if len(name) <= _SAFE_DIGITS and name.isascii() and name.isdecimal():
        return int(name)  # as nearly every name is, and a repository may have 100,000
    digits = name.strip(_ASCII_SPACE)
    if len(digits) > _MAX_DIGITS or _INT64_TEXT.fullmatch(digits) is None:
        return None
    number = int(digits)
    return number if -MAX_VERSION - 1 <= number <= MAX_VERSION else None


def names_by_version(names: Iterable[str]) -> dict[int, tuple[str, ...]]:
    """Group directory entries by the version that TensorFlow Serving reads from them, lowest first.

    Names that are no version to it are left out; several names of one number are sorted as it sorts them.
    """
    found: dict[int, list[str]] = {}
    for name in names:
        number = version_of_entry(name)
        if number is not None:
            found.setdefault(number, []).append(name)
    return {number: tuple(sorted(found[number])) for number in sorted(found)}


def _why_not_a_name(name: str) -> str | None:
    """Say why a model must not have this name; None if it may."""
    if not name:
        return "it is empty, and requests with an empty model name are refused"
    if _NAME.fullmatch(name) is None:
        if not re.match(r"[A-Za-z0-9]", name):
            return "it must begin with an ASCII letter or digit"
        strange = sorted(set("".join(_NOT_IN_NAME.findall(name))))
        return f"it may have only ASCII letters, digits, '_', '.' and '-', not {_shown(''.join(strange))}"
    return _why_reserved(name)


def _why_reserved(name: str) -> str | None:
    """Say why a name of allowed characters must still not be a model's."""
    if len(name) > MAX_NAME_BYTES:
        return f"it has {len(name)} bytes, at most {MAX_NAME_BYTES} are allowed"
    if name.isdigit():
        return "it is an integer, which TensorFlow Serving takes for a version"
    if name == CONFIG_FILE:
        return "it is the name of the config file beside the models"
    if name.endswith(".json"):
        return "it ends in .json like servingrepo's own records"
    return None


def _proposed_name(name: str) -> str:
    """Make an allowed model name that resembles this one."""
    proposed = _NOT_IN_NAME.sub("-", name).strip("-_.").removesuffix(".json")
    proposed = proposed[:MAX_NAME_BYTES].rstrip("-_.")
    if is_model_name(proposed):
        return proposed
    return f"model-{proposed[: MAX_NAME_BYTES // 2]}" if proposed.isdigit() else "my-model"


def _why_not_a_label(label: str) -> str | None:
    """Say why a version must not have this label; None if it may."""
    if not label:
        return "it is empty"
    if _LABEL.fullmatch(label) is None:
        return "labels have only ASCII letters, digits and '_'"
    if len(label) > MAX_NAME_BYTES:
        return f"it has {len(label)} bytes, at most {MAX_NAME_BYTES} are allowed"
    return None


def _objections_to_version(text: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a version number's text and what to do; only the first one counts."""
    begin = "versions are 1, 2, 3, …"
    plain = text.strip()
    unsigned = plain[1:] if plain[:1] in {"+", "-"} else plain
    if not plain:
        yield "it is empty", begin
    if unsigned.isdigit() and not unsigned.isascii():
        yield "it has digits other than 0 to 9", "write it in ASCII digits"
    if not unsigned.isdigit():
        yield "it is not a decimal number", begin
    number = unsigned.lstrip("0") or "0"
    if plain != text:
        yield "it has whitespace around it", f"write {number}"
    if plain.startswith("-"):
        yield "it is negative", begin
    if number == "0":
        yield "versions begin at 1", begin
    if len(number) > len(str(MAX_VERSION)) or int(number) > MAX_VERSION:
        yield "it is beyond int64", f"the greatest version is {MAX_VERSION}"
    if plain.startswith("+"):
        yield "it has a sign", f"write {number}"
    if plain.startswith("0"):
        yield "it has leading zeros", f"write {number}"


def _shown(text: str) -> str:
    """Quote text for a message: escapes visible, length bounded."""
    return ascii(text) if len(text) <= MAX_NAME_BYTES else ascii(text[:MAX_NAME_BYTES]) + "…"
