"""A compose environment of its own for a test, with a repository in a temporary folder."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from servingrepo.testing.exports import write_export
from tests.docker.fixtures import docker

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = PROJECT / "compose" / "docker-compose.yml"
PREDICT = (PROJECT / "tests" / "docker" / "predict.py").read_text()

# Anybody but root: files must not need root, nor end up as root's.
USER = (os.getuid(), os.getgid()) if os.getuid() else (1234, 1234)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Environment:
    """One project of Compose."""

    name: str
    folder: Path
    own_image: str
    variables: dict[str, str]
    file: Path = COMPOSE_FILE

    def command_line(self, *arguments: str) -> list[str]:
        """Return the words of a compose command."""
        return ["docker", "compose", "--project-name", self.name, "-f", str(self.file), *arguments]

    def attempt(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a compose command that may fail."""
        return subprocess.run(
            self.command_line(*arguments),
            env={**os.environ, **self.variables, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def compose(self, *arguments: str, **variables: str) -> str:
        """Run a compose command that must work; return its standard output."""
        done = self.attempt(*arguments, **variables)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """Return what every container has said."""
        return self.attempt("logs").stdout

    def up(self, **variables: str) -> None:
        """Bring the server up and wait until it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "60", **variables)

    def wait_until_gone(self) -> None:
        """Wait until neither a promotion runs nor the server for smoke tests."""
        end = time.monotonic() + 120
        while left := {*self.compose("ps", "--services").split()}.intersection(
            {"smoke", "promote"}
        ):
            assert time.monotonic() < end, f"{left} did not end\n{self.logs()}"
            time.sleep(0.2)

    def promote(self, run: str, *options: str, **variables: str) -> int:
        """Promote a run as model `m`; return the version.

        The server for smoke tests may be about to end after the promotion before: this one gets one of its own.
        """
        self.wait_until_gone()
        arguments = ("run", "--rm", "promote", run, "--model", "m", "--quiet", *options)
        return int(self.compose(*arguments, **variables))

    def rollback(self, **variables: str) -> None:
        """Roll `m` back."""
        self.compose("run", "--rm", "rollback", "m", "-m", "the test wants it", **variables)

    def command(self, *arguments: str) -> str:
        """Run any command of servingrepo's image on the repository."""
        return self.compose("run", "--rm", "servingrepo", *arguments)

    def predict(self) -> tuple[int, float]:
        """Ask model `m` from another container for the version that answers and its y for x=4."""
        network = ("--network", f"{self.name}_default")
        command = (self.own_image, "-", "serving:8500", "m")
        out = docker(
            "run", "--rm", "-i", *network, "--entrypoint", "python", *command, stdin=PREDICT
        )
        version, y = out.split()
        return int(version), float(y)

    def restart(self) -> None:
        """Restart the server and wait until it is healthy."""
        self.compose("restart", "--timeout", "5", "serving")
        self.wait_for_health("healthy")

    def state(self) -> dict[str, object]:
        """Return what Docker says of the server's container."""
        (container,) = json.loads(docker("inspect", self.container()))
        return dict(container)

    def container(self) -> str:
        """Return the id of the server's container."""
        return self.compose("ps", "--all", "--quiet", "serving").strip()

    def health(self) -> tuple[str, str]:
        """Return the server's health, and what the last check said."""
        text = docker("inspect", "--format", "{{json .State.Health}}", self.container())
        health = json.loads(text)
        log = health["Log"] or [{"Output": ""}]
        return health["Status"], log[-1]["Output"].strip()

    def wait_for_health(self, wanted: str, *, seconds: float = 60) -> str:
        """Wait for a health; return what the last check said."""
        begun = time.monotonic()
        while True:
            status, said = self.health()
            if status == wanted:
                return said
            assert time.monotonic() - begun < seconds, f"{status}: {said}\n{self.logs()}"
            time.sleep(0.2)

    def down(self) -> None:
        """Take everything down."""
        self.compose("--profile", "release", "down", "--timeout", "5")

    def left(self) -> list[str]:
        """Return the containers, networks and volumes of this project that exist."""
        label = ("--filter", f"label=com.docker.compose.project={self.name}", "--format")
        return [
            *docker("ps", "--all", *label, "{{.Names}} {{.Status}}").splitlines(),
            *docker("network", "ls", *label, "{{.Name}}").splitlines(),
            *docker("volume", "ls", *label, "{{.Name}}").splitlines(),
        ]


def new_environment(
    folder: Path, *, own_image: str, standin_image: str, file: Path = COMPOSE_FILE
) -> Environment:
    """Make a repository's folder and two runs, whose models answer x / 2 + 1 and x / 2 + 2."""
    for run, offset in (("one", 1.0), ("two", 2.0)):
        write_export(folder / "runs" / run / "saved_model", offset=offset, variables=True)
    (folder / "serving" / "models").mkdir(parents=True)
    if not os.getuid():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *USER)
    variables = {
        "SMOKE_LINGER": "5",
        "SERVINGREPO_IMAGE": own_image,
        "SERVING_IMAGE": standin_image,
        "SERVINGREPO_DIR": str(folder / "serving"),
        "SERVINGREPO_RUNS": str(folder / "runs"),
        "SERVINGREPO_USER": f"{USER[0]}:{USER[1]}",
        "SERVING_GRPC_PORT": "0",
        "SERVING_REST_PORT": "0",
    }
    name = f"servingrepo-test-{os.getpid()}-{next(_numbers)}"
    return Environment(name, folder, own_image, variables, file)
