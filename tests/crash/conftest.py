"""The full sweep takes minutes: it runs with `-m crash`, and is otherwise left out, not skipped."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.forking import Forking
from tests.crash.scenarios import write_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = "crash cases"
"""The property of a test that says how many faults it tried."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults were tried."""
    reports = [
        one for outcome in ("passed", "failed") for one in terminalreporter.stats.get(outcome, ())
    ]
    counts = [count for one in reports for name, count in one.user_properties if name == CASES]
    if counts:
        terminalreporter.write_line(f"crash sweep: {sum(counts)} faults in {len(counts)} tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests marked `crash` out unless a marker expression speaks of them."""
    if "crash" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("crash") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("crash") is None]


@pytest.fixture(scope="session", autouse=True)
def heard_interrupts() -> None:
    """Let child processes hear SIGINT: where the tests run in the background, they would inherit deafness."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """A process that runs commands at once."""
    with Forking(tmp_path_factory.mktemp("forking") / "output") as process:
        yield process


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, if there is one: a process that dies loses nothing by it, and fsync costs nothing."""
    shelf = Path("/dev/shm")
    if not os.access(shelf, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="servingrepo-crash-", dir=shelf) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directories to promote from."""
    return write_runs(tmp_path_factory.mktemp("runs"))
