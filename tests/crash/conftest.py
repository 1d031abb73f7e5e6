"""The full sweep takes minutes: it runs with `-m crash`, and is otherwise left out, not skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.forking import Forking
from tests.crash.scenarios import write_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests marked `crash` out unless a marker expression speaks of them."""
    if "crash" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("crash") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("crash") is None]


@pytest.fixture(scope="session")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """A process that runs commands at once."""
    with Forking(tmp_path_factory.mktemp("forking") / "output") as process:
        yield process


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directories to promote from."""
    return write_runs(tmp_path_factory.mktemp("runs"))
