"""Fixtures of the docker engine's tests: a fake server's image, another daemon, a check for left containers."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.docker.daemons import OwnDaemon, fake_image, own_daemon
from tests.docker.fixtures import docker
from tests.support import run_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

GONE_SECONDS = 5


@pytest.fixture(scope="session")
def fake(own_image: str) -> str:
    """An image with a fake server that starts in half a second."""
    return fake_image(own_image)


@pytest.fixture(scope="session")
def elsewhere(fake: str) -> Iterator[OwnDaemon]:
    """A daemon that does not see the tests' files, has certificates, and the fake server's image."""
    with own_daemon(tls=True) as daemon:
        daemon.load(fake)
        yield daemon


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a good SavedModel."""
    return run_with(tmp_path / "run", offset=2.0)


@pytest.fixture
def nothing_left(elsewhere: OwnDaemon) -> Callable[[], AbstractContextManager[None]]:
    """Check that the daemon elsewhere has the same containers, volumes and networks after a block as before."""

    @contextmanager
    def check() -> Iterator[None]:
        before = elsewhere.things()
        yield
        assert elsewhere.things() == before

    return check


def owned_by(pid: int) -> list[str]:
    """Return the containers on the machine's daemon that a process made; other tests' are none of ours."""
    listed = docker(
        "ps", "--all", "--format", '{{.ID}} {{.Label "servingrepo.owner"}}', "--no-trunc"
    )
    return [line.split()[0] for line in listed.splitlines() if line.endswith(f":{pid}")]


def wait_until(happened: Callable[[], bool], what: str, *, seconds: float = 20) -> None:
    """Wait for something that happens in another process."""
    begun = time.monotonic()
    while not happened():
        assert time.monotonic() - begun < seconds, what
        time.sleep(0.02)


def children_named(word: str) -> list[str]:
    """Return the command lines of all processes that name a word."""
    done = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if word in line]
