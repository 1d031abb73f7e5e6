"""Fixtures that every test may use."""

from __future__ import annotations

import os

# No child of a test uses gRPC, and gRPC's handlers for forks have aborted one that was about to become a server.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long examples take says how busy the machine is, and nothing of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def shared_folder(variable: str, name: str) -> Path:
    """Find test data that is not part of the project; where it is missing, skip, but fail in CI."""
    default = Path(__file__).resolve().parents[2] / "shared" / name
    folder = Path(os.environ.get(variable, default))
    if folder.is_dir():
        return folder
    reason = f"{variable} does not name a folder, and there is none at {default}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not skip: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """SavedModels and run directories that other people wrote."""
    return shared_folder("SERVINGREPO_CORPUS", "corpus")


@pytest.fixture(scope="session")
def conformance() -> Path:
    """A real TensorFlow Serving's recorded answers, and their runner."""
    return shared_folder("SERVINGREPO_CONFORMANCE", "conformance")


@pytest.fixture
def fleet() -> Iterator[ExitStack]:
    """Keep servers running until the test ends."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session", autouse=True)
def heard_interrupts() -> None:
    """Hear SIGINT, here and in child processes: where the tests run in the background, it would be ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith("SERVINGREPO_") and name not in {
            "SERVINGREPO_CORPUS",
            "SERVINGREPO_CONFORMANCE",
        }:
            monkeypatch.delenv(name)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: nothing there may be absent, and a skip is not green."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("CI=true: skipped tests count as failures", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
