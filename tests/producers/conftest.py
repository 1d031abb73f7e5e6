from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.producers.environments import interpreter


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


@pytest.fixture(scope="session")
def estimators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return produced_by("estimator", "by_estimator.py", tmp_path_factory.mktemp("estimator"))


@pytest.fixture(scope="session")
def keras2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return produced_by("estimator", "by_keras2.py", tmp_path_factory.mktemp("keras2"))


@pytest.fixture(scope="session")
def mlflows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return produced_by("mlflow", "by_mlflow.py", tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return produced_by("packed", "by_hub.py", tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="session")
def sagemaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return produced_by("packed", "by_sagemaker.py", tmp_path_factory.mktemp("sagemaker"))


@pytest.fixture(scope="session")
def tfx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return produced_by("tfx", "by_tfx.py", tmp_path_factory.mktemp("tfx"))
