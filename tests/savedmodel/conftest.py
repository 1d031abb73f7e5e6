"""Models that TensorFlow itself has written, once for all tests here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tensorflow_models.py writes."""
    folder = tmp_path_factory.mktemp("tensorflow")
    script = Path(__file__).with_name("tensorflow_models.py")
    done = subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder
