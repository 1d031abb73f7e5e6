"""Make the environments in which real producers run, each in .producers/: `python -m tests.producers.environments`.

All but the one of TensorFlow 2.15 build on the environment that runs this, by a .pth file, so that TensorFlow is
installed once more only. An environment that is there already, for the same packages, is used as it is.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PLACE = Path(
    os.environ.get("PRODUCERS", Path(__file__).resolve().parents[2] / ".producers")
).absolute()
_TF = ".".join(importlib.metadata.version("tensorflow").split(".")[:2])
_STAMP = "installed"

PACKAGES: dict[str, list[list[str]]] = {
    # The last TensorFlow with tf.estimator, and it runs on Python 3.11.
    "estimator": [["tensorflow-cpu==2.15.1"]],
    "mlflow": [["mlflow==3.17.2"]],
    "packed": [["sagemaker==2.257.7", "tensorflow-hub==0.16.1", f"tf-keras=={_TF}.*"]],
    # TFX 1.21 asks for releases of ml-metadata and tensorflow-data-validation that pip does not find; earlier ones do
    # for its Trainer and Pusher. Only what those two import is installed.
    "tfx": [
        [
            *("--no-deps", "tfx==1.21.0", "ml-pipelines-sdk==1.21.0", "ml-metadata==1.17.1"),
            *("tfx-bsl==1.21.0", "tensorflow-transform==1.21.0", "tensorflow-metadata==1.21.0"),
            *("tensorflow-model-analysis==0.52.0", "tensorflow-data-validation==1.16.1"),
            f"tf-keras=={_TF}.*",
        ],
        [
            *("apache-beam==2.77.0", "pyarrow<19", "pandas<3", "scipy", "ipython<9", "attrs<26"),
            *("joblib", "dill"),
        ],
    ],
}
"""By environment: what pip is asked to install, call by call."""
_ALONE = {"estimator"}


def interpreter(name: str) -> Path | None:
    """Return an environment's Python, or None if it was not made."""
    place = PLACE / name
    if (place / _STAMP).is_file() and (place / _STAMP).read_text() == _recipe(name):
        return place / "bin/python"
    return None


def make(name: str) -> float:
    """Make an environment if it is not there; return the seconds that took."""
    began = time.monotonic()
    if interpreter(name) is None:
        place = PLACE / name
        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True, symlinks=True)
        if name not in _ALONE:
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            pth = place / "lib" / version / "site-packages" / "below.pth"
            pth.write_text(sysconfig.get_path("purelib") + "\n")
        for packages in PACKAGES[name]:
            command: list[str | Path] = [
                place / "bin/python",
                "-m",
                "pip",
                "install",
                "--quiet",
                *packages,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}: {' '.join(packages)}\n{done.stderr}")
        (place / _STAMP).write_text(_recipe(name))
    return time.monotonic() - began


def _recipe(name: str) -> str:
    below = "" if name in _ALONE else sysconfig.get_path("purelib")
    text = repr((PACKAGES[name], below, sys.version))
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    with ThreadPoolExecutor(2) as pool:
        for name, seconds in zip(PACKAGES, pool.map(make, PACKAGES), strict=True):
            print(f"{name}: {seconds:.0f} s in {PLACE / name}")


if __name__ == "__main__":
    main()
