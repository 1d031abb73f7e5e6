"""Commands that are caught in the middle of their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def started(
    *arguments: str | Path, failpoint: str, folder: Path, seconds: int = 30
) -> subprocess.Popen[str]:
    """Start a command that sleeps at a step, and return when it is there."""
    record = folder / "steps"
    process = subprocess.Popen(
        [sys.executable, "-m", "servingrepo", *map(str, arguments)],
        env={
            **os.environ,
            "SERVINGREPO_FAILPOINTS": f"record={record},{failpoint}=sleep:{seconds}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever starts the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    end = time.monotonic() + 30
    while not record.exists() or f"{failpoint}@1" not in record.read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the step was not reached"
        time.sleep(0.01)
    return process


def server_of(process: subprocess.Popen[str]) -> int:
    """Wait for the server that a command starts; return its process id."""
    while True:
        assert process.poll() is None, process.communicate()
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            with suppress(
                FileNotFoundError, ProcessLookupError
            ):  # threads and children come and go
                for child in (task / "children").read_text().split():
                    # Before its exec a child is still a copy of the command.
                    run = Path(f"/proc/{child}/cmdline").read_bytes()
                    if b"servingrepo.embedded" in run:
                        return int(child)
        time.sleep(0.005)


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a server whose command has ended; it ends with its parent, within moments."""
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.01)
