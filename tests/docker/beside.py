"""Run tests where Docker has the image that `--engine auto` takes: `python -m tests.docker.beside PYTEST-ARGUMENT…`.

For that time an image has its name that serves nothing, so that a test which means another engine and does not say so
fails. Where the real image is, that one stays.
"""

from __future__ import annotations

import subprocess
import sys

from servingrepo.servers.engines.docker import DEFAULT_IMAGE
from tests.docker import images


def main() -> int:
    there = subprocess.run(
        ["docker", "image", "inspect", DEFAULT_IMAGE], capture_output=True, check=False
    )
    if there.returncode:
        subprocess.run(["docker", "tag", images.BASE, DEFAULT_IMAGE], check=True)
    try:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *sys.argv[1:]], check=False
        ).returncode
    finally:
        if there.returncode:
            subprocess.run(["docker", "image", "rm", DEFAULT_IMAGE], check=True)


if __name__ == "__main__":
    sys.exit(main())
