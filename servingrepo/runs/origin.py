"""The origin of a version, as values: configuration, code, command and pipeline.

Records of versions have these values, so the import of this module has to be cheap.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Code", "Origin"]


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The commit that was checked out at the promotion. The model may have been trained with another one."""

    commit: str
    of: Literal["run", "working directory"]
    """The work tree that has the commit: the run's, or that of the directory in which promote was called."""
    branch: str = ""
    dirty: bool | None = None
    """Whether tracked files differ from the commit; None: not checked, because git could not say."""

    def __str__(self) -> str:
        """Return the short commit, with `+` if files differ, or `?` if that is not known."""
        return self.commit[:12] + {True: "+", False: "", None: "?"}[self.dirty]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of a version, as far as it is known; secrets are masked."""

    config: dict[str, str] = {}
    """Values of the run's configuration, by their keys joined with slashes."""
    config_files: dict[str, str] = {}
    """SHA-256 of the configuration files, by their paths below the run."""
    config_unread: dict[str, str] = {}
    """Why all or some values of a configuration file are missing, by its path."""
    code: Code | None = None
    command: str = ""
    mlflow: dict[str, str] = {}
    """MLflow's ids of the run, its name, user and source, if MLflow tracked it."""
    pipeline: dict[str, str] = {}
    """Variables of the CI system, by name."""
