"""The versions in a base path, and a policy's choice of them.

After sources/storage_path/file_system_storage_path_source.cc: any child whose name parses as an int64 is a version,
even a file or a broken symlink.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.embedded.states import ServableId
from servingrepo.embedded.status import Code, Status, from_os_error, invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "VersionPath",
    "VersionPolicy",
    "discover",
    "exists",
    "file_path",
    "join_path",
    "parse_version",
]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
# absl::SimpleAtoi: ASCII white space around, an optional sign, decimal digits.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")


class VersionPolicy(msgspec.Struct, frozen=True):
    """ServableVersionPolicy: the latest `number` versions (0 means 1), all, or the `specific` ones that exist."""

    kind: Literal["latest", "all", "specific"] = "latest"
    number: int = 1
    specific: tuple[int, ...] = ()


class VersionPath(msgspec.Struct, frozen=True):
    """A version and its path: the configured base path, and the directory entry."""

    id: ServableId
    path: str


def parse_version(name: str) -> int | None:
    """Return the version number in a directory entry's name, or None."""
    match = _NUMBER.fullmatch(name)
    if match is None:
        return None
    number = int(match[1])
    return number if INT64_MIN <= number <= INT64_MAX else None


def join_path(base: str, child: str) -> str:
    """Join as TensorFlow's io::JoinPath does: one slash between, nothing else normalised."""
    return base + child if base.endswith("/") else f"{base}/{child}"


def file_path(path: str) -> str:
    """Return the path on disk behind a path or `file://` URI."""
    return path.removeprefix("file://")


def exists(path: str) -> bool:
    """Tell whether a path exists, behind links too. One that we may not reach does not (access(2))."""
    return os.path.exists(file_path(path))  # noqa: PTH110 - Path.exists raises where permission is missing


def discover(
    name: str, base_path: str, policy: VersionPolicy
) -> tuple[list[VersionPath], list[str]] | Status:
    """Read a base path.

    Returns:
        The versions that the policy wants, in the order in which to take them (of two with the same number the first
        counts), and warnings; or the error that makes the real server end the poll of *all* models.
    """
    missing = _missing(base_path)
    if missing is not None:
        return invalid(
            f"Could not find base path {base_path} for servable {name} with error {missing}"
        )
    if policy.kind == "specific":
        if not policy.specific:
            return [], [f"No specific versions requested for servable {name}."]
        # If all are there under their plain names, there is no need to list the directory.
        plain = [(number, join_path(base_path, str(number))) for number in policy.specific]
        if all(exists(path) for _, path in plain):
            return [VersionPath(ServableId(name, number), path) for number, path in plain], []
    try:
        children = sorted(
            (entry.name for entry in Path(file_path(base_path)).iterdir()), key=os.fsencode
        )
    except OSError as error:
        return from_os_error(error, base_path)
    numbered = [(n, child) for child in children if (n := parse_version(child)) is not None]
    chosen, warnings = _choose(name, numbered, policy)
    if not chosen:
        warnings.append(
            f"No versions of servable {name} found under base path {base_path}. "
            "Did you forget to name your leaf directory as a number (eg. '/1/')?"
        )
    return [VersionPath(ServableId(name, n), join_path(base_path, c)) for n, c in chosen], warnings


def _choose(
    name: str, numbered: Sequence[tuple[int, str]], policy: VersionPolicy
) -> tuple[list[tuple[int, str]], list[str]]:
    warnings: list[str] = []
    by_number: dict[int, str] = {}
    for number, child in numbered:
        if number in by_number:
            warnings.append(
                f"Duplicate version directories detected. Version {number} will be loaded from "
                f"{child}, {by_number[number]} will be ignored."
            )
        by_number[number] = child
    match policy.kind:
        case "all":
            return list(numbered), warnings
        case "latest":
            latest = sorted(by_number.items(), reverse=True)
            return latest[: max(policy.number, 1)], warnings
        case "specific":
            wanted = set(policy.specific)
            warnings += [
                f"Version {number} of servable {name}, which was requested to be served as a "
                "'specific' version in the servable's version policy, was not found in the file system"
                for number in sorted(wanted - by_number.keys())
            ]
            return [item for item in sorted(by_number.items()) if item[0] in wanted], warnings


def _missing(path: str) -> Status | None:
    scheme, separator, _ = path.partition("://")
    if separator and scheme != "file":
        # The wheel has other file systems than the real server, and this server reaches none.
        text = f"File system scheme '{scheme}' not implemented (file: '{path}')"
        return Status(Code.UNIMPLEMENTED, text)
    if not exists(path):
        return Status(Code.NOT_FOUND, f"{path} not found")
    return None
