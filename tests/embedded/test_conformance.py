"""Plays all recorded conversations of a real server against the embedded server."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.embedded.server_process import MODULE

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = ["--port={port}", "--rest_api_port={rest_port}", "--model_config_file={config}"]


@pytest.mark.tf
@pytest.mark.timeout(240)
def test_embedded_server_answers_as_recorded(conformance: Path) -> None:
    played = subprocess.run(
        [
            sys.executable,
            str(conformance / "run.py"),
            "--server",
            " ".join([*MODULE, *FLAGS]),
            "--corpus",
            str(conformance / "corpus"),
            "--jobs=2",
            "--quiet",
            str(conformance / "scenarios"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = played.stdout.splitlines()
    assert lines[-1:] != [], played.stderr
    assert lines[-1].endswith(" passed, 0 failed"), played.stdout
    assert not lines[-1].startswith("0 passed")
