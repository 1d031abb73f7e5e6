"""The machine learning runtime that the server needs, and an attempt to load a version with it.

`capi` implements it with TensorFlow; tests use a fake. The checks before TensorFlow's loader, and their texts, are
those of servables/tensorflow/{util,saved_model_bundle_factory}.cc and session_bundle/oss/session_bundle_util.cc.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from servingrepo.embedded.status import OK, Code, Status, from_os_error
from servingrepo.embedded.versions import VersionPath, exists, file_path, join_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Feed", "ModelLoader", "Runtime", "Session", "Tensor"]

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


# MaybeSavedModelDirectory (loader.cc).
GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")


class ModelLoader(msgspec.Struct, frozen=True):
    """Brings versions up with a runtime; `warm_up` runs on the new session, before it is available."""

    runtime: Runtime
    tags: tuple[str, ...] = ("serve",)
    warm_up: Callable[[Session, str], Status] = lambda _session, _path: OK

    def reserve(self, version: VersionPath) -> Status:
        """Fail where the real server's estimate of the size on disk fails; it never is too much.

        It fails if a directory cannot be listed, or a file has no size.
        """
        if not exists(version.path):
            return Status(Code.NOT_FOUND, f"{version.path} not found")
        directories = deque([version.path])
        while directories:
            directory = directories.popleft()
            try:
                children = sorted(entry.name for entry in Path(file_path(directory)).iterdir())
            except OSError as error:
                return from_os_error(error, directory)
            for child in (join_path(directory, name) for name in children):
                try:
                    mode = Path(file_path(child)).stat().st_mode
                except OSError as error:
                    return from_os_error(error, child)
                if stat.S_ISDIR(mode):
                    directories.append(child)
        return OK

    def load(self, version: VersionPath) -> Session | Status:
        """Load and warm up."""
        path = version.path
        if exists(join_path(path, "export.meta")):
            return Status(Code.UNIMPLEMENTED, "Session Bundle is deprecated and removed.")
        if not any(exists(join_path(path, name)) for name in GRAPH_FILES):
            text = (
                "Specified file path does not appear to contain a SavedModel bundle (should have a "
                f"file called `saved_model.pb`)\nSpecified file path: {path}"
            )
            return Status(Code.NOT_FOUND, text)
        session = self.runtime.load(path, self.tags)
        if isinstance(session, Status):
            return session
        warmed = self.warm_up(session, path)
        if not warmed.ok:
            session.close()
            return warmed
        return session

    def unload(self, servable: Session) -> None:
        """Close the session."""
        servable.close()
