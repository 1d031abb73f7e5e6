"""Compare a graph's demands with the server of a version. Cheap to import: records hold the demands.

The operations of each minor version are in op_lists.json, made by tools/op_lists.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.texts import some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.savedmodel.values import Demands, Effect

__all__ = [
    "OpState",
    "ServerFit",
    "beside_tensorflow",
    "effect_line",
    "fit_server",
    "graph_version",
    "known_versions",
    "linked_ops",
    "op_state",
    "outside_files",
    "servers_for",
]

Version = tuple[int, int]
ByOp = dict[str, frozenset[Version]]
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
def _lists() -> tuple[dict[Version, int], ByOp, ByOp, frozenset[str]]:
    document = msgspec.json.decode(_FILE.read_bytes(), type=_Document)
    versions = {_version(text): number for text, number in document.versions.items()}

    def by_op(groups: dict[str, str]) -> ByOp:
        found: ByOp = {}
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


TOUCHES = {"file": "files", "network": "the network", "process": "processes"}


class ServerFit(msgspec.Struct, frozen=True, kw_only=True):
    """The fit of a graph with the TensorFlow Serving of one version.

    `checked` is false where nothing is known of that version: then nothing is said of its operations.
    """

    server: str
    checked: bool
    absent: tuple[str, ...] = ()
    without_kernel: tuple[str, ...] = ()
    too_old: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        """Why that server cannot run the graph, a line each."""
        lines = []
        if self.absent:
            lines.append(
                f"TensorFlow Serving {self.server} does not have the operations {some(self.absent)}"
            )
        if self.without_kernel:
            lines.append(
                f"TensorFlow Serving {self.server} cannot run the operations "
                f"{some(self.without_kernel)} on a CPU"
            )
        if self.too_old:
            lines.append(
                f"the graph wants a newer reader (min_consumer) than TensorFlow Serving {self.server}"
            )
        return tuple(lines)


def fit_server(demands: Demands, version: Version) -> ServerFit:
    """Hold a graph's demands against the server of a version, as it is built for CPUs.

    An operation that no kernel runs counts where it stands in the main graph. In a function it may be compiled by
    XLA before anything looks for a kernel.
    """
    server = _text(version)
    consumer = graph_version(version)
    if consumer is None:
        return ServerFit(server=server, checked=False)
    everywhere = sorted({*demands.ops, *demands.function_ops})
    return ServerFit(
        server=server,
        checked=True,
        absent=tuple(op for op in everywhere if op_state(op, version) == "absent"),
        without_kernel=tuple(op for op in demands.ops if op_state(op, version) == "no kernel"),
        too_old=demands.min_consumer > consumer,
    )


def servers_for(demands: Demands) -> str:
    """Say which of the servers that are known have all that a graph asks for."""
    versions = known_versions()
    good = [one for one in versions if not fit_server(demands, one).problems]
    if not good:
        return f"no TensorFlow Serving has them all on CPUs (looked at {_span(versions)})"
    without = [one for one in versions if one not in good]
    return f"TensorFlow Serving {_span(good)} has them all" + (
        f", {_span(without)} does not" if without else ""
    )


def _span(versions: Sequence[Version]) -> str:
    """Return versions for people: 2.13 to 2.21; a list where some between are left out."""
    known = known_versions()
    first, last = known.index(versions[0]), known.index(versions[-1])
    if len(versions) > 2 and last - first == len(versions) - 1:  # noqa: PLR2004 - two are a list
        return f"{_text(versions[0])} to {_text(versions[-1])}"
    return ", ".join(map(_text, versions))


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def effect_line(effect: Effect) -> str:
    """Say what an operation may touch, and where it is."""
    said = f"operation {effect.op} may touch {TOUCHES[effect.kind]}: {some(effect.nodes)}"
    if not effect.files:
        return said
    return f"{said}; the graph names {some(effect.files)}, which is not a file of the export: make it an asset"


def outside_files(demands: Demands | None) -> tuple[str, ...]:
    """Return the paths outside of the export that stand in a graph."""
    effects = demands.effects if demands is not None else ()
    return tuple(sorted({file for one in effects for file in one.files}))


def beside_tensorflow(demands: Demands | None) -> tuple[str, ...]:
    """Return the operations that every TensorFlow Serving has and TensorFlow alone has not.

    They are TensorFlow Text's and TensorFlow Decision Forests', which the server links (model_servers/BUILD).
    """
    if demands is None:
        return ()
    return tuple(sorted({*demands.ops, *demands.function_ops} & linked_ops()))
