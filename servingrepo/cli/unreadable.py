"""A models.config that cannot be read: what is on disk is shown all the same, then this is the error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servingrepo.errors import ConfigInvalid
from servingrepo.repository.config import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from servingrepo.repository.repository import Repository


def refuse_unreadable(repo: Repository, details: Mapping[str, Any]) -> None:
    """End with the error of a config that cannot be read; `details` is what `--json` shows with it.

    Raises:
        ConfigInvalid: Unless somebody has corrected the file just now.
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
