"""The full sweep takes minutes: it runs with `-m crash`, and is otherwise left out, not skipped."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.counting import COUNTS, JSON_TO
from tests.crash.fake_smoke_server import smoke_server
from tests.crash.forking import Forking
from tests.crash.scenarios import write_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTS = "fault points"
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
    target = os.environ.get(JSON_TO)
    if target:
        # A test that could not even be set up has tried nothing, and is no success.
        broken = len(terminalreporter.stats.get("error", ()))
        Path(target).write_text(json.dumps(summed(reports, broken=broken)), encoding="utf-8")


def summed(reports: list[pytest.TestReport], *, broken: int) -> list[dict[str, object]]:
    """Return what each lane's tests have tried and in how many of them something was wrong."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    violations: Counter[str] = Counter()
    for report in reports:
        lane, numbers = lane_of(report)
        counts[lane].update(numbers)
        violations[lane] += report.failed
    if broken:
        violations[next(iter(counts), FAULTS)] += broken
    return [
        {"lane": lane, "counts": dict(numbers), "violations": violations[lane]}
        for lane, numbers in counts.items()
        if numbers or violations[lane]
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests marked `crash` out unless a marker expression speaks of them."""
    if "crash" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("crash") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("crash") is None]


def lane_of(report: pytest.TestReport) -> tuple[str, dict[str, int]]:
    """Return the lane of a test and what it tried; a test that names none belongs to the sweep."""
    for name, value in report.user_properties:
        if name == CASES and isinstance(value, int):
            return FAULTS, {"faults": value}
        if name == COUNTS and isinstance(value, list):
            lane, numbers = value
            return str(lane), numbers
    return FAULTS, {}


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
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run directories to promote from, and beside them where a fake server for smoke tests listens."""
    folder = write_runs(tmp_path_factory.mktemp("runs"))
    with smoke_server(folder):
        yield folder
