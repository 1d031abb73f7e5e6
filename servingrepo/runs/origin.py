"""The origin of a version, as values: configuration, code, command and pipeline.

Records of versions hold them, so importing this module costs nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Code", "Origin"]


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The commit checked out when the version was promoted, which need not be the one that trained."""

    commit: str
    of: Literal["run", "working directory"]
    """Whose work tree this is: the run's, or that of the directory that promote was called in."""
    branch: str = ""
    dirty: bool | None = None
    """Whether tracked files differ from the commit; None: not checked, because git could not say."""

    def __str__(self) -> str:
        """Say the commit in a word: short, with `+` if files differ, `?` if that is not known."""
        return self.commit[:12] + {True: "+", False: "", None: "?"}[self.dirty]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of a version, as far as it is known; secrets are masked."""

    config: dict[str, str] = {}
    """Values of the run's configuration, by their keys joined with slashes."""
    config_files: dict[str, str] = {}
    """SHA-256 of the files of configuration, by their paths below the run."""
    config_unread: dict[str, str] = {}
    """Why a file of configuration has no values here, or not all of them, by its path."""
    code: Code | None = None
    command: str = ""
    mlflow: dict[str, str] = {}
    """MLflow's ids of the run, its name, user and source, if MLflow tracked it."""
    pipeline: dict[str, str] = {}
    """Variables of the CI system, by name."""
