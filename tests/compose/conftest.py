"""The Docker fixtures, and a compose environment that leaves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.compose.environment import Environment, new_environment
from tests.docker.fixtures import compose_plugin, docker_daemon, own_image, standin_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["compose_plugin", "docker_daemon", "own_image", "standin_image"]


@pytest.fixture
def environment(
    compose_plugin: None, own_image: str, standin_image: str, tmp_path: Path
) -> Iterator[Environment]:
    """Nothing is up yet; whatever a test brings up is down afterwards."""
    made = new_environment(tmp_path, own_image=own_image, standin_image=standin_image)
    try:
        yield made
    finally:
        # With what a test may have changed on its way: volumes, containers of `run` that were left behind.
        made.attempt(
            "--profile", "release", "down", "--timeout", "1", "--volumes", "--remove-orphans"
        )
    assert made.left() == []
