"""The result of a scan of a run directory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec

__all__ = ["Candidate", "ExportKind", "Other", "OtherKind", "RunScan", "shown"]

ExportKind = Literal["self", "child", "estimator-export", "nested", "chosen"]
"""Where the SavedModel lies: it is the run itself, directly below it, at export/<exporter>/<timestamp>, deeper in
the run, or named by --saved-model."""

OtherKind = Literal[
    "keras-model",
    "hdf5-model",
    "session-bundle",
    "chunked-saved-model",
    "incomplete-export",
    "eval-saved-model",
    "estimator-checkpoint",
    "tf-checkpoint",
    "keras-weights",
    "graph",
    "tflite",
    "onnx",
    "pytorch",
    "safetensors",
    "pickle",
    "archive",
    "mlflow",
    "mlflow-output",
    "not-what-its-name-says",
    "events",
    "config",
    "metrics",
    "link-out",
    "unreadable",
    "git-lfs-pointer",
    "backslashes",
]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A SavedModel in the run."""

    path: str
    """Below the run, `.` for the run itself."""
    real_path: str
    """Absolute, without links."""
    kind: ExportKind
    written: float
    """When saved_model.pb was last written, in seconds since the epoch."""
    size: int
    """The bytes of all its files."""

    def __str__(self) -> str:
        """Return the path with the time and the size, by which a person can choose."""
        written = datetime.fromtimestamp(self.written, UTC)
        return f"{shown(self.path)}: written {written:%Y-%m-%d %H:%M:%S} UTC, {self.size:,} bytes"


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """A finding beside the SavedModel: files of one kind in one directory."""

    kind: OtherKind
    path: str
    """Below the run: the first of the files, or the one that stands for them."""
    note: str
    """The kind in words."""
    count: int = 1
    """How many of the kind lie in that directory."""
    details: str = ""
    """The results of closer checks."""

    def __str__(self) -> str:
        """Return the path, the kind and the number of files."""
        more = f" ({self.count} of them)" if self.count > 1 else ""
        details = f"; {self.details}" if self.details else ""
        return f"{shown(self.path)}: {self.note}{more}{details}"


class RunScan(msgspec.Struct, frozen=True, kw_only=True):
    """A run directory whose SavedModel was found."""

    run: str
    """The run directory, absolute, without links."""
    export: str
    """The SavedModel's directory, absolute, without links; in the run."""
    kind: ExportKind
    candidates: tuple[Candidate, ...]
    """Every SavedModel found, the one to take included."""
    others: tuple[Other, ...]
    """The other findings in the run."""
    complete: bool = True
    """False if the run is so large that only a part of it was searched."""
    provenance: dict[str, str] = {}
    """Facts about the run: text by name."""


def shown(path: str) -> str:
    """Return a path for a message: as it is, or quoted if it has unprintable characters."""
    return path if path.isprintable() else ascii(path)
