"""Fixtures for tests that need a Docker daemon: import them into a folder's conftest.py.

Without a daemon the tests skip with the reason; in CI they fail.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.docker import images

PREPARE = "tests/docker/prepare, as root, installs and starts what is missing"


def missing(reason: str) -> None:
    """Skip, or fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not skip: {reason}: {PREPARE}")
    pytest.skip(f"{reason}: {PREPARE}")


def docker(*arguments: str, stdin: str = "", timeout: float = 60) -> str:
    """Run a docker command that must work; return what it printed."""
    done = attempt(*arguments, stdin=stdin, timeout=timeout)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def attempt(
    *arguments: str, stdin: str = "", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a docker command that may fail."""
    return subprocess.run(
        ["docker", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def docker_daemon() -> None:
    """A Docker daemon that answers, and the base image."""
    try:
        done = attempt("version", "--format", "{{.Server.Version}}")
    except FileNotFoundError:
        missing("there is no docker command")
    else:
        if done.returncode:
            missing(f"no Docker daemon answers ({done.stderr.strip().splitlines()[-1]})")
    if attempt("image", "inspect", images.BASE).returncode:
        missing(f"there is no image {images.BASE}")


@pytest.fixture(scope="session")
def compose_plugin(docker_daemon: None) -> None:
    """Compose v2 as a plugin of the docker command."""
    if attempt("compose", "version").returncode:
        missing("there is no Docker Compose v2")


@pytest.fixture(scope="session")
def own_image(docker_daemon: None) -> str:
    """servingrepo's own image, of today's sources."""
    return images.build(images.OWN)


@pytest.fixture(scope="session")
def standin_image(docker_daemon: None) -> str:
    """The stand-in for tensorflow/serving, of today's sources."""
    return images.build(images.STANDIN)
