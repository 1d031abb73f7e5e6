"""Compare what the disk holds with what the config wants of it; the facts come as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.modelconfig.findings import Finding, error, warning
from servingrepo.modelconfig.names import names_by_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.modelconfig.value import Entry

__all__ = ["DiskFacts", "EntryKind", "check_disk", "wanted_versions", "why_not_loaded"]

EntryKind = Literal[
    "saved-model",
    "no-saved-model",
    "empty",
    "not-a-directory",
    "broken-link",
    "link-out",
    "unreadable",
]
"""The kind of a child of a base path, links followed: a directory with saved_model.pb or .pbtxt, a directory
with other things only, an empty directory, a file or the like, a link to nothing, a link that was not followed
because it leaves the directory that servers mount, a directory that this user cannot read."""

_FLAT = ": a SavedModel lies directly in it, without a version's directory"
_WHY_NOT: dict[EntryKind, str] = {
    "no-saved-model": "has no saved_model.pb, so it cannot be loaded",
    "empty": "is an empty directory, so it cannot be loaded",
    "not-a-directory": "is not a directory, so it cannot be loaded",
    "broken-link": "is a link to nothing, so it cannot be loaded",
    "link-out": "is a link out of the directory that servers mount, so it cannot be loaded",
}


class DiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The directory at one base path.

    `exists` is false if it is missing or cannot be listed. `entries` has its children by name as listed;
    names that TensorFlow Serving does not read as a version may be left out. A kind is None if nobody looked: then
    no entry may want that version. `flat` says that a SavedModel lies directly in it.
    """

    exists: bool
    entries: Mapping[str, EntryKind | None] = {}
    flat: bool = False

    def versions(self) -> dict[int, tuple[str, ...]]:
        """Return the names by the version that TensorFlow Serving reads from them, lowest first."""
        return names_by_version(self.entries)


def check_disk(entry: Entry, facts: DiskFacts | None) -> Iterator[Finding]:
    """Yield what is wrong with one entry on disk; facts of None are reported as not checked."""
    name = entry.name
    if facts is None:
        yield warning(
            "not-looked-at",
            name,
            "base_path",
            f"{entry.base_path} was not checked: it is not known here",
        )
        return
    if not facts.exists:
        yield error(
            "base-path-missing",
            name,
            "base_path",
            f"{entry.base_path} does not exist",
            "create it with a version in it, or take the model out",
            so="the server stops finding versions of all models, and a reload that adds this one never returns",
        )
        return
    versions = facts.versions()
    if not versions:
        flat = _FLAT if facts.flat else ""
        yield error(
            "flat-saved-model" if facts.flat else "base-path-empty",
            name,
            "base_path",
            f"{entry.base_path} has no versions{flat}",
            f"move it to {entry.base_path.rstrip('/')}/1" if facts.flat else "publish a version",
            so="all that is loaded is unloaded, and a start or a reload that adds this model never ends",
        )
        return
    yield from _check_wanted(entry, facts, versions)
    yield from _check_labels(entry, versions)


def _check_wanted(
    entry: Entry, facts: DiskFacts, versions: dict[int, tuple[str, ...]]
) -> Iterator[Finding]:
    wanted = wanted_versions(entry, list(versions))
    for number in wanted:
        if number not in versions:
            yield error(
                "version-missing",
                entry.name,
                "model_version_policy",
                f"version {number} is not in {entry.base_path}",
                f"there are {_listed(list(versions))}",
                so="the server only logs that",
            )
    for number, names in versions.items():
        if len(names) > 1:
            find = error if number in wanted else warning
            yield find(
                "same-number",
                entry.name,
                "base_path",
                f"{' and '.join(map(repr, names))} in {entry.base_path} are both version {number}",
                "keep one of them",
                so="which one is served depends on the policy",
            )
        for found in names if number in wanted else ():
            why = why_not_loaded(facts.entries[found])
            if why:
                wrong = error(
                    "cannot-load",
                    entry.name,
                    "model_version_policy",
                    f"version {number}: {entry.base_path.rstrip('/')}/{found} {why}",
                    "publish a whole version under a higher number: a failed one is not tried again",
                )
                yield msgspec.structs.replace(wrong, child=found)


def why_not_loaded(kind: EntryKind | None) -> str:
    """Say why a child of this kind cannot be loaded; empty if that is not known."""
    return _WHY_NOT.get(kind, "") if kind is not None else ""


def wanted_versions(entry: Entry, numbers: list[int]) -> list[int]:
    """Return the versions that the server will try to serve."""
    if entry.policy == "specific":
        return list(entry.versions)
    return numbers if entry.policy == "all" else numbers[-entry.latest_count :]


def _check_labels(entry: Entry, versions: dict[int, tuple[str, ...]]) -> Iterator[Finding]:
    for label, number in entry.labels.items():
        if number not in versions:
            yield error(
                "label-on-nothing",
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
