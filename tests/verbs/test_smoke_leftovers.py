"""What a smoke test that was killed left on a server of somebody's own, and how that goes away again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import EngineUnavailable
from servingrepo.servers.client import ServingClient
from tests.support import command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint

pytestmark = pytest.mark.tf

SECRET = "Bearer sesame"  # noqa: S105 - it opens nothing


def state_of(endpoint: Endpoint, version: int) -> str:
    with ServingClient(endpoint) as client:
        found = client.status("half", version, timeout=5)
    return found[0].state if found else ""


def wait_for(endpoint: Endpoint, version: int, state: str) -> None:
    deadline = Deadline.after(60)
    while state_of(endpoint, version) != state:
        assert not deadline.passed
        deadline.pause(0.05)


def kill_in_a_smoke_test(
    repo: OpenRepository, endpoint: Endpoint, *arguments: str | Path, version: int, folder: Path
) -> None:
    """Kill a command while a request of its smoke test is in flight on a server of somebody's own."""
    case = folder / "case.json"
    case.write_text('{"inputs": {"seconds": 3.0}}')
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "servingrepo", "--root", str(repo.root)),
            *map(str, arguments),
            *("--engine", f"remote:{endpoint}", "--case", str(case)),
            *("--header", f"authorization={SECRET}"),
        ]
    )
    wait_for(endpoint, version, "AVAILABLE")
    process.send_signal(signal.SIGKILL)
    process.wait(30)


@contextmanager
def killed_promotion(
    tmp_path: Path, conformance: Path
) -> Iterator[tuple[OpenRepository, Endpoint]]:
    """Kill a promotion in the middle of its smoke test; the server has the staged version then."""
    repo = new_repository(tmp_path / "serving")
    run = conformance / "corpus" / "slow"
    with live_server(repo, log=tmp_path / "log") as endpoint:
        promote = ("promote", run, "--model", "half")
        kill_in_a_smoke_test(repo, endpoint, *promote, version=1, folder=tmp_path)
        assert state_of(endpoint, 1) == "AVAILABLE"
        yield repo, endpoint


def test_recovery_unloads_what_a_killed_promotion_left_on_a_server(
    tmp_path: Path, conformance: Path
) -> None:
    with killed_promotion(tmp_path, conformance) as (repo, endpoint):
        (intent,) = repo.value.layout.journal.glob("*.json")
        assert str(endpoint) in intent.read_text()
        assert "sesame" not in intent.read_text(), "how it is spoken to is not written down"
        (done,) = repo.recover()
        assert f"half@1 unloaded from {endpoint}" in done.outcome
        assert state_of(endpoint, 1) in {"UNLOADING", "END"}
        assert repo.recover() == ()


def test_the_next_promotion_unloads_it_and_burns_the_number(
    tmp_path: Path, conformance: Path
) -> None:
    with killed_promotion(tmp_path, conformance) as (repo, endpoint):
        done = repo.promote(
            run_with(tmp_path / "b", offset=2.0), model="half", engine=f"remote:{endpoint}"
        )
        assert (done.version, done.proof is not None) == (2, True)
        assert state_of(endpoint, 1) == "END"
        assert list(repo.value.layout.journal.iterdir()) == []


def test_who_changes_something_else_speaks_to_no_smoke_server(
    tmp_path: Path, conformance: Path
) -> None:
    with killed_promotion(tmp_path, conformance) as (repo, endpoint):
        assert command("--root", repo.root, "config", "write").code == 0
        assert state_of(endpoint, 1) == "AVAILABLE"
        assert repo.show("half").highest == 1, "burnt all the same"
        assert len(repo.recover()) == 1, "kept for recover"
        assert state_of(endpoint, 1) in {"UNLOADING", "END"}


def test_a_smoke_server_that_has_ended_left_nothing(tmp_path: Path, conformance: Path) -> None:
    with killed_promotion(tmp_path, conformance) as (repo, _):
        pass
    assert len(repo.recover()) == 1
    assert repo.recover() == ()


def test_what_recovery_cannot_unload_is_said_and_looked_for_again(
    tmp_path: Path, conformance: Path
) -> None:
    with killed_promotion(tmp_path, conformance) as (repo, endpoint):
        pass
    with socket.create_server(("127.0.0.1", endpoint.port)):  # listens, and never answers
        said = command("--root", repo.root, "recover")
        assert said.code == 0
        assert str(endpoint) in said.out
        assert "could not be emptied" in said.out
    assert len(repo.recover()) == 1
    assert repo.recover() == ()


def test_a_version_that_is_served_is_not_taken_for_a_leftover(
    tmp_path: Path, conformance: Path
) -> None:
    """Nobody can tell whether the server was made a live one since."""
    repo = new_repository(tmp_path / "serving")
    slow = conformance / "corpus" / "slow"
    with live_server(repo, log=tmp_path / "log") as endpoint:
        repo.promote(slow, model="half", smoke=False)
        kill_in_a_smoke_test(repo, endpoint, "smoke", "half@1", version=1, folder=tmp_path)
        (done,) = repo.recover()
        assert "restart it" in done.outcome
        assert state_of(endpoint, 1) == "AVAILABLE"
        with pytest.raises(EngineUnavailable, match="serves half@1"):
            repo.smoke("half@1", engine=f"remote:{endpoint}", timeout=20)


def test_a_killed_smoke_test_of_a_version_is_cleared_by_the_next_one(
    tmp_path: Path, conformance: Path
) -> None:
    repo = new_repository(tmp_path / "serving")
    slow = conformance / "corpus" / "slow"
    with live_server(repo, log=tmp_path / "log") as endpoint:
        repo.promote(slow, model="half", smoke=False, serve=False)
        kill_in_a_smoke_test(repo, endpoint, "smoke", "half@1", version=1, folder=tmp_path)
        assert repo.smoke("half@1", engine=f"remote:{endpoint}", timeout=60).report.passed
        assert list(repo.value.layout.journal.iterdir()) == []


def test_recovery_says_which_servers_a_killed_change_may_have_left_behind(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    for number in (1.0, 2.0):
        run = run_with(tmp_path / f"r{number}", offset=number)
        repo.promote(run, model="half", smoke=False, serve=number == 1.0)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        died = command(
            *("--root", repo.root, "serve", "half@2", "--endpoint", str(endpoint)),
            env={"SERVINGREPO_FAILPOINTS": "switch.stage-loaded@1=kill"},
        )
        assert died.code == -signal.SIGKILL
        recovered = command("--root", repo.root, "recover")
        assert f"servingrepo reload --endpoint {endpoint}" in recovered.out
        assert command("--root", repo.root, "reload", "--endpoint", str(endpoint)).code == 0
        assert state_of(endpoint, 2) == "END"
        run = run_with(tmp_path / "r3", offset=3.0)
        died = command(
            *("--root", repo.root, "promote", run, "--model", "half", "--no-smoke"),
            *("--endpoint", str(endpoint)),
            env={"SERVINGREPO_FAILPOINTS": "switch.stage-loaded@1=kill"},
        )
        assert died.code == -signal.SIGKILL
        recovered = command("--root", repo.root, "recover")
        assert f"servingrepo reload --endpoint {endpoint}" in recovered.out
        assert repo.recover() == ()
