"""Commands as processes of their own: what a signal leaves behind, servers and locks included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

import servingrepo
from servingrepo.storage.lock import is_held
from tests.crash.state import broken_promises, leftovers
from tests.support import command, ending

MARK = "TEST_CRASH_MARK"


@pytest.fixture
def root(tmp_path: Path, runs: Path) -> Path:
    """A repository that serves one version."""
    repo, _ = servingrepo.init(tmp_path / "repo")
    repo.promote(runs / "first", model="m", smoke=False)
    return repo.root


def marked(mark: str) -> list[int]:
    """Return the processes that inherited a mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue  # it ended, or is not ours
            if f"{MARK}={mark}".encode() in environment and state != "Z":
                found.append(int(folder.name))
    return found


def servers(mark: str) -> list[int]:
    """Return those of them that are embedded servers: until it has its own command line, a child has its parent's."""
    found = []
    for process in marked(mark):
        with suppress(OSError):
            if b"servingrepo.embedded" in Path("/proc", str(process), "cmdline").read_bytes():
                found.append(process)
    return found


def wait_until_gone(mark: str, *, seconds: float = 20) -> list[int]:
    end = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


@pytest.mark.parametrize(
    ("fault", "code"), [("kill", -9), ("term", 143), ("int", 130), ("ENOSPC", 51), ("EIO", 50)]
)
@pytest.mark.parametrize("step", ["staged", "c1.done", "c2.done"])
def test_the_real_command_in_a_fresh_interpreter_ends_and_recovers_as_promised(
    step: str, fault: str, code: int, root: Path, runs: Path
) -> None:
    history = (root / ".servingrepo" / "history.jsonl").read_bytes()
    done = command(
        *("--root", root, "promote", runs / "new", "--model", "m", "--no-smoke"),
        env={"SERVINGREPO_FAILPOINTS": f"{step}={fault}"},
    )
    assert done.code == code, done.err
    assert done.out == ""
    assert not is_held(root / ".servingrepo" / "lock")
    assert command("--root", root, "recover").code == 0
    assert broken_promises(root, history_before=history) == []
    again = command("--root", root, "promote", runs / "new", "--model", "m", "--no-smoke", "-q")
    assert again.code == 0
    assert again.out.strip() in {"2", "3"}


@pytest.mark.tf
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_promotion_killed_while_its_server_runs_leaves_no_server(
    sent: signal.Signals, code: int, root: Path, runs: Path
) -> None:
    mark = uuid.uuid4().hex
    history = (root / ".servingrepo" / "history.jsonl").read_bytes()
    with ending(
        subprocess.Popen(
            [
                *(sys.executable, "-m", "servingrepo", "--root", root),
                *("promote", runs / "new", "--model", "m", "--engine", "embedded"),
            ],
            env={**os.environ, MARK: mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A session of its own: a signal to us is none to its server, as with systemd or kill PID.
            start_new_session=True,
        )
    ) as process:
        end = time.monotonic() + 30
        while not (started := servers(mark)) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert started, "the server never started"
        process.send_signal(sent)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert wait_until_gone(mark) == []
    if sent is not signal.SIGKILL:
        assert leftovers(root) == []
    assert command("--root", root, "recover").code == 0
    assert broken_promises(root, history_before=history) == []


@pytest.mark.crash
@pytest.mark.tf
@pytest.mark.parametrize("fault", ["kill", "term", "int", "ENOSPC", "EIO", "EACCES"])
def test_a_promotion_interrupted_after_its_smoke_test_has_not_happened(
    fault: str, root: Path, runs: Path
) -> None:
    mark = uuid.uuid4().hex
    history = (root / ".servingrepo" / "history.jsonl").read_bytes()
    done = command(
        *("--root", root, "promote", runs / "new", "--model", "m", "--engine", "embedded"),
        env={"SERVINGREPO_FAILPOINTS": f"proven={fault}", MARK: mark},
    )
    expected = {"kill": -9, "term": 143, "int": 130, "ENOSPC": 51, "EIO": 50, "EACCES": 52}
    assert done.code == expected[fault], done.err
    assert wait_until_gone(mark) == []
    assert command("--root", root, "recover").code == 0
    assert broken_promises(root, history_before=history) == []
    assert servingrepo.open(root).show("m").served == 1
    how = ("--engine", "embedded", "-q")
    again = command("--root", root, "promote", runs / "new", "--model", "m", *how)
    assert (again.code, again.out.strip()) == (0, "3")
    assert wait_until_gone(mark) == []
