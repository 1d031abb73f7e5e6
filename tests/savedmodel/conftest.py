"""Models that TensorFlow itself has written, once for all tests and workers here."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tensorflow_models.py writes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "tensorflow"
    with (shared / "tensorflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "said.json").exists():
            write(folder)
    return folder


def write(folder: Path) -> None:
    script = Path(__file__).with_name("tensorflow_models.py")
    done = subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
