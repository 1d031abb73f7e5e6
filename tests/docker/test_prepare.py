"""The script that makes a machine ready."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.docker import images

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).with_name("prepare")


def test_prepare_does_nothing_on_a_ready_machine(docker_daemon: None) -> None:
    begun = time.monotonic()
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("prepare: ready: Docker ")
    assert images.BASE in done.stdout
    assert time.monotonic() - begun < 2


def test_image_of_unchanged_sources_is_not_built_again(docker_daemon: None) -> None:
    name = images.build(images.OWN)
    begun = time.monotonic()
    assert images.build(images.OWN) == name
    assert time.monotonic() - begun < 2


def test_scripts_are_valid_bash() -> None:
    compose = images.PROJECT / "compose"
    for script in (SCRIPT, compose / "healthcheck.sh", compose / "install.sh"):
        subprocess.run([shutil.which("bash") or "bash", "-n", script], check=True)
