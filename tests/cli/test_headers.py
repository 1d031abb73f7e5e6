"""Headers are often tokens: which servers get them, and over what connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo import Endpoint, Security
from servingrepo.errors import SettingsError
from servingrepo.fleet.rules import Rules
from servingrepo.servers.metrics import page_of
from tests.cli.inside import refused
from tests.support import Outcome, command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository

FILE = "servingrepo.toml"
HEADER = "--header=authorization=Bearer 5ecret"
BY_VARIABLE = {"SERVINGREPO_HEADER": "authorization=Bearer 5ecret"}
CLOSED = "127.0.0.1:1"
"""Where nobody listens: a command that goes on ends with exit code 65 or 68."""


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    """A repository with one version, in a directory of ours."""
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "run", offset=1.0), model="m", smoke=False)
    return repo


def called(
    repo: OpenRepository, text: str, *arguments: str, env: dict[str, str] | None = None
) -> Outcome:
    """Run a command in the root, with this settings file there."""
    (repo.root / FILE).write_text(text)
    done = command(*arguments, "--wait=1", cwd=repo.root, env=env)
    assert "5ecret" not in done.out + done.err
    return done


# who gets them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arguments", "env"),
    [
        (f'endpoints = ["{CLOSED}"]', ["serve", "m@1", HEADER], {}),
        (f'endpoints = ["{CLOSED}"]', ["serve", "m@1"], BY_VARIABLE),
        (f'[models.m]\nendpoints = ["{CLOSED}"]', ["serve", "m@1"], BY_VARIABLE),
        (f'[environments.p]\nendpoints = "{CLOSED}"', ["serve", "m@1", "--env=p", HEADER], {}),
        (f'[serve]\nendpoint = "{CLOSED}"', ["serve", "m@1"], BY_VARIABLE),
        ('header = "x-token=5ecret"', ["serve", "m@1", f"--endpoint={CLOSED}"], {}),
        ('header = "x-token=5ecret"', ["serve", "m@1"], {"SERVINGREPO_ENDPOINT": CLOSED}),
        ('[serve]\nheader = "x-token=5ecret"', ["serve", "m@1", f"--endpoint={CLOSED}"], {}),
    ],
)
def test_headers_go_to_no_server_named_elsewhere(
    text: str, arguments: list[str], env: dict[str, str], repo: OpenRepository
) -> None:
    done = called(repo, text, *arguments, env=env)
    refused(done, 10, CLOSED, FILE, f"name it: --settings {FILE}", "SERVINGREPO_ENDPOINT")
    # The remedy does what it says: a file that the caller names is the caller's own word.
    named = called(repo, text, f"--settings={FILE}", *arguments, env=env)
    refused(named, 65, CLOSED)


@pytest.mark.parametrize(
    ("text", "arguments", "env"),
    [
        (f'endpoints = ["{CLOSED}"]\nheader = "x-token=5ecret"', [], {}),
        ("", [f"--endpoint={CLOSED}", HEADER], {}),
        ("", [f"--endpoint={CLOSED}"], BY_VARIABLE),
        ("", [HEADER], {"SERVINGREPO_ENDPOINT": CLOSED}),
        ("", [], {"SERVINGREPO_ENDPOINT": CLOSED, **BY_VARIABLE}),
        (f'endpoints = "{CLOSED}"', [], {}),
    ],
)
def test_headers_go_to_servers_that_were_named_with_them(
    text: str, arguments: list[str], env: dict[str, str], repo: OpenRepository
) -> None:
    refused(called(repo, text, "serve", "m@1", *arguments, env=env), 65, CLOSED)


def test_headers_without_any_server_are_no_mistake(repo: OpenRepository) -> None:
    assert called(repo, "", "serve", "m@1", env=BY_VARIABLE).code == 0


def test_an_engine_and_a_metrics_page_are_servers_too(repo: OpenRepository) -> None:
    smoke = ("smoke", "m@1", "--timeout=1")
    (repo.root / FILE).write_text(f'engine = "remote:{CLOSED}"\n')
    done = command(*smoke, cwd=repo.root, env=BY_VARIABLE)
    refused(done, 10, CLOSED, "authorization", FILE)
    assert "5ecret" not in done.err
    assert command("--settings", FILE, *smoke, cwd=repo.root, env=BY_VARIABLE).code == 65
    serve = ("serve", "m@1", f"--endpoint={CLOSED}", HEADER)
    page = "http://127.0.0.1:2"
    refused(called(repo, f'[serve]\nmetrics_url = "{page}"', *serve), 10, page, FILE)
    refused(called(repo, "", *serve, f"--metrics-url={page}"), 65, CLOSED)


# in clear -----------------------------------------------------------------------------------------

# Names that no resolver knows and addresses that lead nowhere (RFC 2606, RFC 5737): nothing is sent to them.
ELSEWHERE = ["serving.invalid:8500", "192.0.2.1:8500", "[2001:db8::1]:8500", "0.0.0.0:8500"]


@pytest.mark.parametrize("endpoint", ELSEWHERE)
def test_headers_leave_this_machine_over_tls_only(endpoint: str, repo: OpenRepository) -> None:
    for arguments in (
        ("serve", "m@1", f"--endpoint={endpoint}"),
        ("promote", "../run", "--model=m", f"--endpoint={endpoint}", "--no-smoke", "--serve"),
    ):
        done = called(repo, "", *arguments, HEADER)
        refused(done, 10, "headers (authorization)", endpoint, "--tls", "--insecure-header")
    smoke = ("smoke", "m@1", f"--engine=remote:{endpoint}", HEADER)
    refused(command(*smoke, cwd=repo.root), 10, endpoint, "without encryption")
    assert repo.show("m").served == 1
    assert [one.action for one in repo.history("m")] == ["promote"]


def test_headers_may_go_in_clear_if_that_is_said(repo: OpenRepository) -> None:
    endpoint = "--endpoint=serving.invalid:8500"
    for text, arguments, env in (
        ("", [endpoint, HEADER, "--insecure-header"], {}),
        ("", [endpoint], {**BY_VARIABLE, "SERVINGREPO_INSECURE_HEADER": "1"}),
        ("insecure_header = true\n", [endpoint, HEADER], {}),
        ("", [endpoint, HEADER, "--tls"], {}),
        ("", [endpoint], {}),
    ):
        refused(called(repo, text, "serve", "m@1", *arguments, env=env), 65, "serving.invalid")


@pytest.mark.tf
def test_headers_go_to_loopback_in_clear(repo: OpenRepository, tmp_path: Path) -> None:
    with live_server(repo, log=tmp_path / "log") as endpoint:
        for host in ("localhost", "127.0.0.1", "127.0.0.3", "[::ffff:127.0.0.1]"):
            at = f"--endpoint={host}:{endpoint.port}"
            if host != "127.0.0.3":
                assert called(repo, "", "serve", "m@1", at, HEADER).code == 0, host
            else:
                refused(called(repo, "", "serve", "m@1", at, HEADER), 65)


def test_headers_reach_no_metrics_page_in_clear(repo: OpenRepository) -> None:
    serve = ("serve", "m@1", f"--endpoint={CLOSED}", HEADER)
    done = called(repo, "", *serve, "--metrics-url=http://metrics.invalid:8501")
    refused(done, 10, "authorization", "http://metrics.invalid:8501", "https://")
    assert called(repo, "", *serve, "--metrics-url=https://metrics.invalid").code == 65
    # In Python too, before any server is told anything.
    secret = Security(headers=(("authorization", "5ecret"),))
    rules = Rules(metrics_url="http://metrics.invalid:8501", watch=0.1)
    with pytest.raises(SettingsError, match="without encryption"):
        repo.serve("m@1", endpoints=[Endpoint.parse(CLOSED, secret)], rules=rules, wait=1)


def test_python_refuses_an_endpoint_with_headers_in_clear() -> None:
    headers = (("authorization", "5ecret"),)
    plain = Security(headers=headers)
    for endpoint in ELSEWHERE:
        with pytest.raises(SettingsError, match="authorization") as refusal:
            Endpoint.parse(endpoint, plain)
        assert "5ecret" not in str(refusal.value)
        assert Endpoint.parse(endpoint, Security(headers=headers, tls=True))
        allowed = Security.read(headers=headers, insecure_headers=True)
        assert page_of("http://{host}:1", Endpoint.parse(endpoint, allowed))
    for endpoint in ("localhost:1", "127.9.9.9:1", "[::1]:1"):
        assert Endpoint.parse(endpoint, plain)
    assert Endpoint("unix:/run/serving.sock", 0, plain)
