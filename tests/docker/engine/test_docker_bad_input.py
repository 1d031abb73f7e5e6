"""Bad daemons and images: each error comes in time, says what happened, and leaves nothing behind."""

from __future__ import annotations

import os
import platform as this
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import EngineUnavailable, NoSpace, ServerDied, ServerTimeout
from servingrepo.servers.engines.processes import free_port
from servingrepo.testing.exports import write_export
from tests.docker.daemons import base_image_with, own_daemon, tiny_image
from tests.docker.engine.conftest import owned_by, wait_until
from tests.docker.fixtures import attempt, docker
from tests.support import Outcome, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.docker.daemons import OwnDaemon

    NothingLeft = Callable[[], AbstractContextManager[None]]

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

OTHER_MACHINE = "arm64" if this.machine() == "x86_64" else "amd64"
MARGIN_SECONDS = 8
"""What a command may take beyond its --timeout: its own start, and the container's removal."""


def smoke(run: Path, *options: str, url: str = "", timeout: float = 30) -> Outcome:
    """Smoke-test with the docker engine, and see that it keeps its time."""
    begun = time.monotonic()
    arguments = ["--engine", "docker", "--timeout", f"{timeout:g}", "--json", *options]
    done = command("smoke", f"{run}/", *arguments, env={"DOCKER_HOST": url} if url else None)
    assert time.monotonic() - begun < timeout + MARGIN_SECONDS
    return done


def fails(done: Outcome, kind: type[Exception], *words: str) -> None:
    assert done.code == kind.exit_code, done.out + done.err  # type: ignore[attr-defined]
    error = done.json["error"]
    for word in words:
        assert word in f"{error['message']} {error['hint']} {error['problems']} {error['log']}"
    assert error["hint"]


@contextmanager
def silent_port() -> Iterator[int]:
    """Accept connections and never answer."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def test_no_daemon_is_said_at_once(run: Path, tmp_path: Path) -> None:
    for url in (f"tcp://127.0.0.1:{free_port()}", f"unix://{tmp_path}/no.sock"):
        fails(smoke(run, url=url, timeout=5), EngineUnavailable, "there is no Docker daemon", url)
    nonsense = smoke(run, url="carrier-pigeon://home", timeout=5)
    fails(nonsense, EngineUnavailable, "carrier-pigeon")


def test_daemon_that_hangs_is_given_up_in_time(run: Path) -> None:
    with silent_port() as port:
        done = smoke(run, url=f"tcp://127.0.0.1:{port}", timeout=2)
    fails(done, ServerTimeout, "did not answer in time")


def test_something_else_than_a_daemon_is_refused(run: Path) -> None:
    web = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
    port = free_port()
    with subprocess.Popen([*web, str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: _listens(port), "no web server")
            done = smoke(run, url=f"tcp://127.0.0.1:{port}", timeout=5)
        finally:
            server.terminate()
    fails(done, EngineUnavailable)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_user_without_access_to_the_daemon_is_refused(elsewhere: OwnDaemon) -> None:
    # As nobody, who need not be able to read our interpreter: only this step runs as that user.
    elsewhere.folder.chmod(0o755)
    script = (
        "import os\n"
        "from servingrepo.errors import EngineUnavailable\n"
        "import docker.context, docker.tls, requests.utils\n"
        "from servingrepo.deadline import Deadline\n"
        "from servingrepo.servers.engines.docker_daemon import connect\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); os.environ['HOME'] = '/'\n"
        "try:\n"
        "    with connect(deadline=Deadline.after(5)): print('let in')\n"
        "except EngineUnavailable as error: print(error.message, error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DOCKER_HOST": elsewhere.url},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "this user may not talk to the Docker daemon" in done.stdout
    assert "join the group docker" in done.stdout


def test_missing_image_is_not_pulled_unasked(elsewhere: OwnDaemon, run: Path) -> None:
    done = smoke(run, "--image", "registry.invalid/tf:1", url=elsewhere.url)
    fails(done, EngineUnavailable, "registry.invalid/tf:1 is not on the Docker daemon", "--pull")
    pulled = smoke(run, "--image", "registry.invalid/tf:1", "--pull", url=elsewhere.url)
    fails(pulled, EngineUnavailable, "cannot be pulled")


def test_pull_that_hangs_is_given_up_in_time(
    elsewhere: OwnDaemon, run: Path, nothing_left: NothingLeft
) -> None:
    with silent_port() as port, nothing_left():
        image = f"127.0.0.1:{port}/x:1"
        done = smoke(run, "--image", image, "--pull", url=elsewhere.url, timeout=3)
    fails(done, ServerTimeout, f"{image} was not pulled within 3 s")


@pytest.mark.parametrize(
    ("entrypoint", "kind", "words"),
    [
        ('["true"]', EngineUnavailable, "exposes no port 8500"),
        ('["sh", "-c", "echo no; exit 3"]', EngineUnavailable, "ended with code 3"),
        ('["/no/such/program"]', EngineUnavailable, "could not run its entrypoint"),
        ('["sleep", "3600", "#"]', EngineUnavailable, "exposes no port 8500"),
        ('["sh", "-c", "trap : TERM; while :; do sleep 1; done"]', ServerTimeout, "no port 8500"),
    ],
)
def test_image_that_is_no_tensorflow_serving_is_named(
    elsewhere: OwnDaemon,
    base_there: None,
    run: Path,
    nothing_left: NothingLeft,
    entrypoint: str,
    kind: type[Exception],
    words: str,
) -> None:
    image = base_image_with(entrypoint, "srt-not-serving:1", elsewhere)
    with nothing_left():
        done = smoke(run, "--image", image, url=elsewhere.url, timeout=4)
    fails(done, kind, words)


@pytest.fixture(scope="session")
def base_there(elsewhere: OwnDaemon) -> None:
    """The base image, under its name, on the daemon elsewhere."""
    from tests.docker import images

    elsewhere.load(images.BASE)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("http", EngineUnavailable, "is no TensorFlow Serving"),
        ("deaf", ServerTimeout, "thinking about it"),
        ("stubborn", ServerTimeout, "I stay"),
        ("quit", EngineUnavailable, "ended with code 0"),
        ("greedy", ServerDied, "ran out of memory"),
    ],
)
def test_server_that_misbehaves_is_ended(
    elsewhere: OwnDaemon,
    fake: str,
    run: Path,
    nothing_left: NothingLeft,
    fault: str,
    kind: type[Exception],
    words: str,
) -> None:
    with nothing_left():
        options = ("--memory", "200m", f"--server-arg=--fake={fault}")
        done = smoke(run, "--image", fake, *options, url=elsewhere.url, timeout=4)
    fails(done, kind, words)


def test_volumes_of_an_image_go_with_the_container(
    elsewhere: OwnDaemon, fake: str, run: Path, nothing_left: NothingLeft
) -> None:
    dockerfile = f"FROM {fake}\nVOLUME /scratch\n"
    elsewhere.run("build", "--quiet", "--tag", "srt-volume:1", "-", stdin=dockerfile.encode())
    with nothing_left():
        assert smoke(run, "--image", "srt-volume:1", url=elsewhere.url).code == 0


def test_image_for_another_machine_is_refused_before_the_start(
    elsewhere: OwnDaemon, run: Path, nothing_left: NothingLeft
) -> None:
    platform = f"linux/{OTHER_MACHINE}"
    image = tiny_image("srt-other-machine:1", elsewhere, architecture=OTHER_MACHINE)
    with nothing_left():
        done = smoke(run, "--image", image, url=elsewhere.url)
        fails(done, EngineUnavailable, f"is for {OTHER_MACHINE}, but", f"--platform {platform}")
        done = smoke(run, "--image", image, "--platform", "linux/s390x", url=elsewhere.url)
        fails(done, EngineUnavailable, f"is for {OTHER_MACHINE}, not for linux/s390x")


def test_container_removed_by_somebody_while_loading_is_said(fake: str, run: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "servingrepo", "smoke", f"{run}/", "--engine", "docker"),
            *("--image", fake, "--server-arg=--fake=deaf"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: bool(owned_by(process.pid)), "no container was made")
    (container,) = owned_by(process.pid)
    wait_until(lambda: "thinking" in attempt("logs", container).stdout, "it did not start")
    docker("rm", "--force", container)
    _, said = process.communicate(timeout=20)
    assert process.returncode == ServerDied.exit_code, said
    assert "another program removed the container" in said


def test_model_too_big_for_the_daemons_disk_is_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_export(run / "saved_model", payload_bytes=80 << 20)
    with own_daemon(megabytes=40) as daemon:
        image = tiny_image("srt-tiny:1", daemon)
        before = daemon.things()
        done = smoke(run, "--image", image, url=daemon.url)
        fails(done, NoSpace, "has no space left", "docker system df")
        assert daemon.things() == before


def test_daemon_that_stops_half_way_is_cleaned_later(fake: str, run: Path) -> None:
    with own_daemon() as daemon:
        daemon.load(fake)
        before = daemon.things()

        def start(*options: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "servingrepo", "smoke", f"{run}/"),
                    *("--engine", "docker", "--image", fake, *options),
                    "--server-arg=--fake=deaf",
                ],
                env={**os.environ, "DOCKER_HOST": daemon.url},
                stderr=subprocess.PIPE,
                text=True,
            )
            wait_until(lambda: bool(daemon.run("ps", "--quiet")), "no container was made")
            return process

        process = start("--timeout", "5")
        daemon.signal(signal.SIGSTOP)
        _, said = process.communicate(timeout=5 + MARGIN_SECONDS)
        daemon.signal(signal.SIGCONT)
        assert process.returncode == ServerTimeout.exit_code, said
        assert "did not answer in time" in said
        assert "may be left behind" in said
        assert smoke(run, "--image", fake, url=daemon.url).code == 0
        assert daemon.things() == before

        process = start()
        daemon.kill()
        _, said = process.communicate(timeout=MARGIN_SECONDS)
        assert process.returncode == EngineUnavailable.exit_code, said
        assert "stopped answering" in said
        assert "may be left behind" in said
        daemon.start()
        assert daemon.run("ps", "--all", "--quiet")
        assert smoke(run, "--image", fake, url=daemon.url).code == 0
        # The default networks are made anew at every start.
        assert daemon.run("ps", "--all", "--quiet") == ""
        assert daemon.run("volume", "ls", "--quiet") == ""
