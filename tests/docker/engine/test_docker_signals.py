"""Real commands that are interrupted or killed while their container runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import servingrepo
from tests.docker.engine.conftest import owned_by, wait_until
from tests.support import command, new_repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docker.daemons import OwnDaemon

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

END_SECONDS = 20


def start(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "servingrepo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        # Whoever starts the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal and wait for the end; return what was said."""
    process.send_signal(number)
    _, said = process.communicate(timeout=END_SECONDS)
    assert process.returncode in {128 + number, -number}, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("fault", ["deaf", "stubborn"])
def test_smoke_interrupted_while_the_server_loads_removes_its_container(
    fake: str, run: Path, number: signal.Signals, fault: str
) -> None:
    options = ["--engine", "docker", "--image", fake, f"--server-arg=--fake={fault}"]
    process = start("smoke", f"{run}/", *options)
    wait_until(lambda: bool(owned_by(process.pid)), "no container was made")
    end(process, number)
    assert owned_by(process.pid) == []


def test_smoke_interrupted_at_any_moment_leaves_no_container(fake: str, run: Path) -> None:
    # From before the daemon is asked anything, over create and start, to the removal.
    for moment in range(10):
        process = start("smoke", f"{run}/", "--engine", "docker", "--image", fake)
        time.sleep(0.25 + moment * 0.12)
        process.send_signal(signal.SIGTERM if moment % 2 else signal.SIGINT)
        process.communicate(timeout=END_SECONDS)
        # By the signal itself, where it came before there was anybody to handle it.
        assert process.returncode in {0, 130, 143, -signal.SIGINT, -signal.SIGTERM}
        assert owned_by(process.pid) == [], f"moment {moment}"


def test_promote_interrupted_leaves_neither_container_nor_staging_nor_intent(
    fake: str, run: Path, tmp_path: Path
) -> None:
    repo = new_repository(tmp_path / "serving")
    options = ["--engine", "docker", "--image", fake, "--server-arg=--fake=deaf"]
    process = start("--root", tmp_path / "serving", "promote", run, "--model", "half", *options)
    wait_until(lambda: bool(owned_by(process.pid)), "no container was made")
    end(process, signal.SIGTERM)
    assert owned_by(process.pid) == []
    assert list(repo.value.layout.journal.iterdir()) == []
    assert list(repo.value.layout.models.rglob(".staging/*")) == []


# Killed commands are tried on a daemon of this worker's own: any use of the engine cleans up after dead commands,
# and on the machine's daemon that may be another worker's.


def killed(daemon: OwnDaemon, *arguments: str | Path) -> None:
    """Kill a command during its smoke test, and see that its container is left."""
    options = ["--engine", "docker", "--server-arg=--fake=deaf"]
    before = daemon.run("ps", "--quiet")
    process = start(*arguments, *options, env={"DOCKER_HOST": daemon.url})
    wait_until(lambda: daemon.run("ps", "--quiet") != before, "no container was made")
    end(process, signal.SIGKILL)
    assert daemon.run("ps", "--quiet") != before


def killed_promotion(daemon: OwnDaemon, image: str, run: Path, root: Path) -> None:
    killed(daemon, "--root", root, "promote", run, "--model", "half", "--image", image)


def test_recover_removes_a_killed_promotions_container(
    elsewhere: OwnDaemon, fake: str, run: Path, tmp_path: Path
) -> None:
    root = tmp_path / "serving"
    repo = new_repository(root)
    killed_promotion(elsewhere, fake, run, root)
    done = command("--root", root, "recover", env={"DOCKER_HOST": elsewhere.url})
    assert "half@1: promote died; it had not happened: dropped" in done.out
    assert elsewhere.run("ps", "--all", "--quiet") == ""
    assert list(repo.value.layout.journal.iterdir()) == []


def test_next_writer_removes_a_killed_promotions_container(
    elsewhere: OwnDaemon, fake: str, run: Path, tmp_path: Path
) -> None:
    root = tmp_path / "serving"
    new_repository(root)
    killed_promotion(elsewhere, fake, run, root)
    promote = ["promote", str(run), "--model", "half", "--no-smoke", "-q"]
    done = command("--root", root, *promote, env={"DOCKER_HOST": elsewhere.url})
    assert done.out == "2\n"
    assert elsewhere.run("ps", "--all", "--quiet") == ""


def test_recover_without_a_daemon_keeps_the_intent(
    elsewhere: OwnDaemon, fake: str, run: Path, tmp_path: Path
) -> None:
    root = tmp_path / "serving"
    repo = new_repository(root)
    killed_promotion(elsewhere, fake, run, root)
    away = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    done = command("--root", root, "recover", env=away)
    assert done.code == 0
    assert "its container may be left" in done.out
    assert "there is no Docker daemon" in done.out
    assert len(list(repo.value.layout.journal.iterdir())) == 1
    # Others can work meanwhile.
    promote = ["promote", str(run), "--model", "half", "--no-smoke", "-q"]
    assert command("--root", root, *promote, env=away).out == "2\n"
    assert command("--root", root, "recover", env={"DOCKER_HOST": elsewhere.url}).code == 0
    assert elsewhere.run("ps", "--all", "--quiet") == ""
    assert list(repo.value.layout.journal.iterdir()) == []
    assert [one.version for one in servingrepo.open(root).show("half").versions] == [2]


def test_next_engine_removes_a_killed_smoke_tests_container(
    elsewhere: OwnDaemon, fake: str, run: Path
) -> None:
    smoke = ["smoke", f"{run}/", "--engine", "docker", "--image", fake]
    environment = {"DOCKER_HOST": elsewhere.url}
    alive = start(*smoke, "--server-arg=--fake=deaf", env=environment)
    wait_until(lambda: bool(elsewhere.run("ps", "--quiet")), "no container was made")
    (of_the_living,) = elsewhere.run("ps", "--quiet").split()
    killed(elsewhere, "smoke", f"{run}/", "--image", fake)
    assert len(elsewhere.run("ps", "--quiet").split()) == 2
    assert command(*smoke, env=environment).code == 0
    assert elsewhere.run("ps", "--quiet") == of_the_living
    end(alive, signal.SIGTERM)
    assert elsewhere.run("ps", "--all", "--quiet") == ""
