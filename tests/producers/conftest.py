from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.producers.environments import interpreter

if TYPE_CHECKING:
    from collections.abc import Callable


def produced_by(environment: str, script: str, root: Path) -> Path:
    """Run one of the scripts here in an environment of its own; what it leaves is not to be written into."""
    python = interpreter(environment)
    if python is None:
        reason = f"the environment {environment!r} is not there: make producers"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must not skip: {reason}")
        pytest.skip(reason)
    done = subprocess.run(
        [python, Path(__file__).with_name(script), root],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "GIT_PYTHON_REFRESH": "quiet",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return root


def producing(environment: str, script: str) -> Callable[..., Path]:
    """Return a fixture: what a script left in its environment, made once in a session."""

    @pytest.fixture(scope="session")
    def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return produced_by(environment, script, tmp_path_factory.mktemp(environment))

    return made


estimators = producing("estimator", "by_estimator.py")
keras2 = producing("estimator", "by_keras2.py")
mlflows = producing("mlflow", "by_mlflow.py")
hub = producing("packed", "by_hub.py")
sagemaker = producing("packed", "by_sagemaker.py")
tfx = producing("tfx", "by_tfx.py")
