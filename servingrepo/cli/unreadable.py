"""The error for a models.config that cannot be read, after the command has shown what is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servingrepo.errors import ConfigInvalid
from servingrepo.repository.config import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servingrepo.repository.repository import Repository


def refuse_unreadable(repo: Repository, details: Mapping[str, Any]) -> None:
    """Raise the error of a config that cannot be read, with `details` for `--json`.

    Raises:
        ConfigInvalid: Unless the file was corrected just now.
    """
    try:
        read_config(repo)
    except ConfigInvalid as error:
        error.details |= details
        error.problems = (
            *error.problems,
            "so what is served is not known; what is on disk was shown",
        )
        raise
