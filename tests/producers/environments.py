"""Make the environments in which real producers run, each in .producers/: `python -m tests.producers.environments`.

All but the one of TensorFlow 2.15 build on the environment that runs this, by a .pth file, so that TensorFlow is
installed once more only. An environment that is there already, for the same packages, is used as it is.
"""

from __future__ import annotations

import hashlib
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
_STAMP = "installed"
_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"

LOCKS = {
    "estimator": ["estimator"],
    "mlflow": ["mlflow"],
    "packed": ["packed"],
    "tfx": ["tfx", "tfx-needs"],
}
"""By environment: the files of requirements/ that pip installs into it, call by call."""
_BARE = {"tfx"}
"""Without what they require, which pip does not find: pyproject.toml."""
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
        for lock in LOCKS[name]:
            command: list[str | Path] = [place / "bin/python", "-m", "pip", "install", "--quiet"]
            command += ["--require-hashes", *(["--no-deps"] if lock in _BARE else [])]
            command += ["--requirement", _REQUIREMENTS / f"{lock}.txt"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}: {lock}.txt\n{done.stderr}")
        (place / _STAMP).write_text(_recipe(name))
    return time.monotonic() - began


def _recipe(name: str) -> str:
    below = "" if name in _ALONE else sysconfig.get_path("purelib")
    locks = [(_REQUIREMENTS / f"{lock}.txt").read_text() for lock in LOCKS[name]]
    return hashlib.sha256(repr((locks, below, sys.version)).encode()).hexdigest()


def main() -> None:
    if sys.version_info[:2] != (3, 11):
        raise SystemExit(
            "TensorFlow 2.15, the last with Estimators, runs on Python 3.11 and no newer one: "
            "make producers VENV=.venv-3.11 PYTHON=python3.11"
        )
    with ThreadPoolExecutor(2) as pool:
        for name, seconds in zip(LOCKS, pool.map(make, LOCKS), strict=True):
            print(f"{name}: {seconds:.0f} s in {PLACE / name}")


if __name__ == "__main__":
    main()
