"""The short form of races.py: sixteen processes for a few seconds. `make races` runs it for minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.crash.races import EXPECTED

PROJECT = Path(__file__).resolve().parents[2]


def test_sixteen_processes_killed_at_random_lose_nothing_and_nobody_sees_half_a_change(
    memory: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.races", "--seconds", "8", "--dir", memory],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert not done.stderr
    facts = json.loads(done.stdout)
    assert facts["violations"] == 0, facts["found"]
    assert done.returncode == 0
    assert facts["kills"] >= 10
    assert facts["runs"] >= 50
    assert facts["poller"]["looks"] >= 50
    assert facts["history_lines"] > 10
    for name, outcomes in facts["operations"].items():
        assert outcomes.keys() <= EXPECTED | {"ok"}, name
