from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def produced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories made by real producers, in one child process: see produce.py. Not to be written into."""
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard, which tf.summary needs, is not installed")
    root = tmp_path_factory.mktemp("produced")
    script = Path(__file__).with_name("produce.py")
    done = subprocess.run(
        [sys.executable, str(script), str(root)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for temporary files, which has to be empty in the end."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place
