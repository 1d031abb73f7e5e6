"""examples/compose-app: several models, labels, and an application that asks by label."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.testing.exports import Served, write_export
from tests.compose.environment import PROJECT, USER, Environment
from tests.docker.fixtures import attempt
from tests.docker.images import BASE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

EXAMPLE = PROJECT / "examples" / "compose-app"


@dataclass(frozen=True)
class App:
    """The example, brought up with runs of its README's names."""

    environment: Environment

    def promote(self, run: str, model: str, *options: str, fails: int = 0) -> None:
        arguments = ("run", "--rm", "promote", run, "--model", model, *options)
        self.environment.wait_until_gone()
        done = self.environment.attempt(*arguments)
        assert done.returncode == fails, done.stderr

    def label(self, *arguments: str) -> None:
        self.environment.command("label", "set", *arguments)

    def ask(self, path: str, data: str = "[4.0]") -> tuple[int, dict[str, Any]]:
        """Ask the application from outside."""
        address = self.environment.compose("port", "app", "8000").strip()
        request = urllib.request.Request(f"http://{address}/{path}", data=data.encode())
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310 - http
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)

    def answers(self, path: str) -> list[float]:
        status, answer = self.ask(path)
        assert status == 200, answer
        return list(answer["predictions"])


@pytest.fixture
def app(environment: Environment, tmp_path: Path) -> App:
    runs = tmp_path / "runs"
    exports: dict[str, dict[str, Any]] = {
        "2026_05_10_prices": {"offset": 1.0},
        "2026_05_17_prices": {"offset": 2.0},
        "2026_05_18_prices_broken": {
            "offset": 3.0,
            "signatures": [Served(fault="uninitialized")],
        },
        "2026_05_11_opinions": {"slope": 10.0, "offset": 0.0},
    }
    for name, export in exports.items():
        write_export(runs / name / "saved_model", **export)
    if not os.getuid():
        for path in runs.rglob("*"):
            os.chown(path, *USER)
    variables = {**environment.variables, "APP_IMAGE": BASE, "APP_PORT": "0"}
    return App(replace(environment, file=EXAMPLE / "compose.yml", variables=variables))


def test_the_application_follows_labels_of_two_models(app: App) -> None:
    app.environment.up()
    status, answer = app.ask("prices")
    assert status == 400, "nothing has the label yet"
    assert "label" in answer["error"]
    app.promote("2026_05_10_prices", "prices")
    app.promote("2026_05_11_opinions", "opinions")
    app.label("prices@1", "stable")
    app.label("opinions@1", "stable")
    assert (app.answers("prices"), app.answers("opinions")) == ([3.0], [40.0])
    # A new version beside the old one: only who asks for it gets it.
    app.promote("2026_05_17_prices", "prices", "--no-serve")
    app.label("prices@2", "canary", "--serve")
    assert (app.answers("prices"), app.answers("prices?label=canary")) == ([3.0], [4.0])
    app.label("prices@2", "stable")
    assert app.answers("prices") == [4.0]
    # A broken one changes nothing, and a rollback takes the labels along.
    app.promote("2026_05_18_prices_broken", "prices", fails=70)
    assert app.answers("prices") == [4.0]
    app.environment.compose("run", "--rm", "rollback", "prices", "-m", "complaints")
    assert (app.answers("prices"), app.answers("opinions")) == ([3.0], [40.0])
    app.environment.compose("exec", "serving", "bash", "/healthcheck.sh")
    app.environment.wait_until_gone()
    app.environment.down()
    assert app.environment.left() == []


def test_the_application_says_what_is_wrong(app: App) -> None:
    app.environment.up()
    assert app.ask("prices", data="{")[0] == 400
    app.environment.compose("stop", "--timeout", "5", "serving")
    status, answer = app.ask("prices")
    assert (status, "serving:8501" in answer["error"]) == (503, True)


def test_compose_files_are_valid_and_the_readme_names_real_services(compose_plugin: None) -> None:
    """The example needs no variable, and each command of its README is one of its services."""
    file = str(EXAMPLE / "compose.yml")
    listed = attempt("compose", "--file", file, "--profile", "release", "config", "--services")
    assert listed.returncode == 0, listed.stderr
    readme = (EXAMPLE / "README.md").read_text()
    named = set(re.findall(r"docker compose run --rm (\S+)", readme))
    assert named == {"promote", "servingrepo", "rollback"}
    assert named < set(listed.stdout.split())
    mounted = attempt("compose", "--file", file, "config", "--format", "json")
    services = json.loads(mounted.stdout)["services"]
    sources = {one["source"] for one in services["serving"]["volumes"]}
    assert f"{EXAMPLE}/serving/models" in sources, "the repository lies beside the example"
