"""What a graph asks of the server that loads it, and whether the server of a version has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.savedmodel.effects import find_effects
from servingrepo.savedmodel.op_lists import graph_version, known_versions, op_state
from servingrepo.savedmodel.values import Demands
from servingrepo.savedmodel.wording import some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.savedmodel.graph import GraphReader

__all__ = ["ServerFit", "demands_of", "fit_server", "servers_for"]

Version = tuple[int, int]


class ServerFit(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the TensorFlow Serving of one version has what a graph asks for.

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


def demands_of(meta_graph: Any, reader: GraphReader) -> Demands:
    """Return what a MetaGraph asks for. Only functions that the main graph can reach count."""
    main = {node.op for node in reader.graph.node} - reader.functions.keys()
    inner = _function_ops(reader) - main - reader.functions.keys()
    versions = meta_graph.graph_def.versions
    custom = sorted(op for op in main | inner if _is_custom(op))
    return Demands(
        producer=versions.producer,
        min_consumer=versions.min_consumer,
        ops=tuple(sorted(main)),
        function_ops=tuple(sorted(inner)),
        custom=tuple(custom),
        effects=find_effects(meta_graph, reader),
    )


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


def _is_custom(op: str) -> bool:
    return all(op_state(op, version) == "absent" for version in known_versions())


def _function_ops(reader: GraphReader) -> set[str]:
    """Return the operations of the functions that the main graph can reach."""
    found: set[str] = set()
    seen: set[str] = set()
    pending = [""]
    while pending:
        for _, names in reader.calls(pending.pop()):
            new = set(names) - seen
            seen |= new
            pending += new
    for name in seen:
        found.update(node.op for node in reader.body(name))
    return found
