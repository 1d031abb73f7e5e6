"""Compare what the disk holds with what the config wants of it; the facts come as arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.modelconfig.findings import Finding, error, warning
from servingrepo.modelconfig.names import names_by_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.modelconfig.value import Entry

__all__ = ["DiskFacts", "EntryKind", "check_disk"]

EntryKind = Literal["saved-model", "no-saved-model", "empty", "not-a-directory", "broken-link"]
"""What a child of a base path is, links followed: a directory with saved_model.pb or .pbtxt, a directory
with other things only, an empty directory, a file or the like, a link to nothing."""

_FLAT = ": a SavedModel lies directly in it, without a version's directory"
_WHY_NOT: dict[EntryKind, str] = {
    "no-saved-model": "has no saved_model.pb, so it cannot be loaded",
    "empty": "is an empty directory, so it cannot be loaded",
    "not-a-directory": "is not a directory, so it cannot be loaded",
    "broken-link": "is a link to nothing, so it cannot be loaded",
}


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The directory at one base path.

    `exists` is false if it is missing or cannot be listed. `entries` has its children by name as listed;
    names that TensorFlow Serving does not read as a version may be left out. `flat` says that a SavedModel
    lies directly in it.
    """

    exists: bool
    entries: dict[str, EntryKind] = {}
    flat: bool = False

    def versions(self) -> dict[int, tuple[str, ...]]:
        """Return the names by the version that TensorFlow Serving reads from them, lowest first."""
        return names_by_version(self.entries)


def check_disk(entry: Entry, facts: DiskFacts | None) -> Iterator[Finding]:
    """Yield what is wrong with one entry on disk; facts of None are reported as not checked."""
    name = entry.name
    if facts is None:
        yield warning(name, "base_path", f"{entry.base_path} was not checked: it is not known here")
        return
    if not facts.exists:
        yield error(
            name,
            "base_path",
            f"{entry.base_path} does not exist: the server stops finding versions of all models, and a reload"
            " that adds this one never returns",
            "create it with a version in it, or take the model out",
        )
        return
    versions = facts.versions()
    if not versions:
        flat = _FLAT if facts.flat else ""
        yield error(
            name,
            "base_path",
            f"{entry.base_path} has no versions{flat}: all that is loaded is unloaded, and a start or a"
            " reload that adds this model never ends",
            f"move it to {entry.base_path.rstrip('/')}/1" if facts.flat else "publish a version",
        )
        return
    yield from _check_wanted(entry, facts, versions)
    yield from _check_labels(entry, versions)


def _check_wanted(
    entry: Entry, facts: DiskFacts, versions: dict[int, tuple[str, ...]]
) -> Iterator[Finding]:
    wanted = _wanted(entry, list(versions))
    for number in wanted:
        if number not in versions:
            yield error(
                entry.name,
                "model_version_policy",
                f"version {number} is not in {entry.base_path}: the server only logs that",
                f"there are {_listed(list(versions))}",
            )
    for number, names in versions.items():
        if len(names) > 1:
            find = error if number in wanted else warning
            yield find(
                entry.name,
                "base_path",
                f"{' and '.join(map(repr, names))} in {entry.base_path} are both version {number}: which one"
                " is served depends on the policy",
                "keep one of them",
            )
        for found in names:
            why = _WHY_NOT.get(facts.entries[found])
            if number in wanted and why is not None:
                yield error(
                    entry.name,
                    "model_version_policy",
                    f"version {number}: {entry.base_path.rstrip('/')}/{found} {why}",
                    "publish a whole version under a higher number: a failed one is not tried again",
                )


def _wanted(entry: Entry, numbers: list[int]) -> list[int]:
    """Return the versions that the server will try to serve."""
    if entry.policy == "specific":
        return list(entry.versions)
    return numbers if entry.policy == "all" else numbers[-entry.latest_count :]


def _check_labels(entry: Entry, versions: dict[int, tuple[str, ...]]) -> Iterator[Finding]:
    for label, number in entry.labels.items():
        if number not in versions:
            yield error(
                entry.name,
                "version_labels",
                f"label {label!r} is on version {number}, which is not in {entry.base_path}",
                "move the label to a version that is served, or remove it",
            )


def _listed(numbers: list[int]) -> str:
    """Name a few of the versions, the highest ones when there are many."""
    few = 8
    shown = ", ".join(map(str, numbers[-few:]))
    return f"{len(numbers)}, the highest are {shown}" if len(numbers) > few else shown
