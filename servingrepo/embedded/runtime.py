"""What the server needs of a machine learning runtime; `capi` implements it with TensorFlow.

A second implementation, a fake one, lets the tests play loads and failures without TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servingrepo.embedded.status import Status

__all__ = ["Feed", "Runtime", "Session", "Tensor"]

Feed = Any
"""A decoded input tensor, as the session that decoded it keeps it."""


class Tensor(msgspec.Struct, frozen=True):
    """An output: its DataType number, its shape, and its elements.

    `data` holds them little-endian and row-major; a string tensor has them in `strings` instead.
    """

    dtype: int
    shape: tuple[int, ...]
    data: bytes = b""
    strings: tuple[bytes, ...] = ()


class Session(Protocol):
    """One loaded SavedModel; its methods are called by many threads."""

    @property
    def signatures(self) -> Mapping[str, Any]:
        """The SignatureDef messages by key, the init op's included."""

    def decode(self, proto: Any) -> Feed | None:
        """Return the tensor that a TensorProto stands for, or None if it stands for none."""

    def run(
        self, feeds: Sequence[tuple[str, Feed]], fetches: Sequence[str], *, timeout_ms: int
    ) -> list[Tensor] | Status:
        """Run the graph; `timeout_ms` 0 means no limit."""

    def close(self) -> None:
        """Free it; no call may be under way."""


class Runtime(Protocol):
    """Loads SavedModels."""

    def load(self, path: str, tags: Sequence[str]) -> Session | Status:
        """Load the MetaGraph with exactly these tags."""
