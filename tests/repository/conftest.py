"""Real repositories with real SavedModels; what promotes them runs no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

import servingrepo
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository


class Release(Protocol):
    """Publish the export with this slope as the next version of `m`, and return its number."""

    def __call__(
        self,
        slope: float,
        *,
        model: str = "m",
        version: int | None = None,
        serve: bool | None = None,
    ) -> int: ...


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    """A new repository."""
    made, _ = servingrepo.init(tmp_path / "repo")
    return made


@pytest.fixture
def release(repo: OpenRepository, tmp_path: Path) -> Release:
    """What publishes without a smoke test."""

    def publish(
        slope: float, *, model: str = "m", version: int | None = None, serve: bool | None = None
    ) -> int:
        run = tmp_path / "runs" / f"slope-{slope}"
        write_export(run / "saved_model", slope=slope, variables=True, fingerprint=True)
        return repo.promote(run, model=model, version=version, serve=serve, smoke=False).version

    return publish


@pytest.fixture
def five(repo: OpenRepository, release: Release) -> OpenRepository:
    """A repository with five versions of `m`, the last one served."""
    for slope in (1.0, 2.0, 3.0, 4.0, 5.0):
        release(slope)
    return repo
