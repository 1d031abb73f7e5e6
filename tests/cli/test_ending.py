from __future__ import annotations

import subprocess
import sys

ENDING = "import sys, threading, time\nfrom servingrepo.cli.main import end\n"


def ended(script: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-E", "-c", ENDING + script],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_output_in_buffers_is_written_before_the_end() -> None:
    done = ended("print('out'); print('err', end='', file=sys.stderr); end(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err")


def test_a_thread_that_still_runs_is_waited_for() -> None:
    late = "lambda: (time.sleep(0.3), print('late'))"
    done = ended(f"threading.Thread(target={late}).start(); end(3)")
    assert (done.returncode, done.stdout) == (3, "late\n")


def test_output_that_cannot_be_written_is_no_success() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = ended("print('out'); end(0)", stdout=full.fileno())
    assert done.returncode == 120
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_stdout_changes_no_exit_code() -> None:
    assert ended("sys.stdout = None; end(7)").returncode == 7
