"""Which operations the TensorFlow Serving of each minor version has: op_lists.json, made by tools/op_lists.py."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

__all__ = ["OpState", "graph_version", "known_versions", "linked_ops", "op_state"]

Version = tuple[int, int]
OpState = Literal["runnable", "no kernel", "absent"]

_FILE = Path(__file__).with_name("op_lists.json")
_ALL = "*"
REWRITTEN = frozenset({"AccumulateNV2"})
"""Operations without a kernel that TensorFlow replaces before it places the graph (accumulate_n_optimizer.cc)."""


class _Document(msgspec.Struct, frozen=True):
    versions: dict[str, int]
    runnable: dict[str, str]
    registered: dict[str, str]
    linked: str


def known_versions() -> tuple[Version, ...]:
    """Return the minor versions whose operations are known, oldest first."""
    return tuple(_lists()[0])


def graph_version(version: Version) -> int | None:
    """Return TF_GRAPH_DEF_VERSION of that TensorFlow: a graph whose min_consumer is higher is refused."""
    return _lists()[0].get(version)


def linked_ops() -> frozenset[str]:
    """Return the operations that servers link beside TensorFlow's own: those of Text and Decision Forests."""
    return _lists()[3]


def op_state(op: str, version: Version) -> OpState | None:
    """Say whether the server of a version has an operation; None if nothing is known of that version.

    "no kernel" means that it is registered, but nothing on a CPU runs it.
    """
    versions, runnable, registered, linked = _lists()
    if version not in versions:
        return None
    if op in linked or op in REWRITTEN or version in runnable.get(op, ()):
        return "runnable"
    return "no kernel" if version in registered.get(op, ()) else "absent"


@cache
def _lists() -> tuple[
    dict[Version, int],
    dict[str, frozenset[Version]],
    dict[str, frozenset[Version]],
    frozenset[str],
]:
    document = msgspec.json.decode(_FILE.read_bytes(), type=_Document)
    versions = {_version(text): number for text, number in document.versions.items()}

    def by_op(groups: dict[str, str]) -> dict[str, frozenset[Version]]:
        found: dict[str, frozenset[Version]] = {}
        for having, names in groups.items():
            which = frozenset(versions if having == _ALL else map(_version, having.split()))
            for name in names.split():
                found[name] = found.get(name, frozenset()) | which
        return found

    linked = frozenset(document.linked.split())
    return versions, by_op(document.runnable), by_op(document.registered), linked


def _version(text: str) -> Version:
    major, minor = text.split(".")
    return int(major), int(minor)
