"""Several endpoints: asked at once, switched together, put back together, and what is left behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import EndpointUnreachable, ServerTimeout, SwitchFailed
from servingrepo.fleet.rules import Rules
from servingrepo.modelconfig import pin, to_proto
from servingrepo.repository.config import pins, read_config
from servingrepo.repository.lagging import LaggingServer, note_lagging, read_lagging
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.processes import free_port
from servingrepo.smoke.files import load_cases
from servingrepo.testing.fake_models import FakeModels
from servingrepo.testing.fake_server import serve_fake
from tests.cli.processes import started
from tests.fleet.test_switch import loaded, two_versions
from tests.support import ask, command, ending, live_server, run_with, running_server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint


def fakes(stack: ExitStack, count: int, *, load_seconds: float = 0.0) -> list[FakeModels]:
    """Serve fakes; each knows its `endpoint`."""
    found = []
    for _ in range(count):
        fake = FakeModels(load_seconds=load_seconds)
        fake.endpoint = stack.enter_context(serve_fake(fake)).endpoint  # type: ignore[attr-defined]
        found.append(fake)
    return found


def at(found: Sequence[FakeModels]) -> list[Endpoint]:
    return [one.endpoint for one in found]  # type: ignore[attr-defined]


def answering(endpoint: Endpoint) -> int:
    with ServingClient(endpoint) as client:
        return client.metadata("half", timeout=5).version


def fleet_of(repo: OpenRepository, stack: ExitStack, count: int) -> list[FakeModels]:
    """Serve fakes that serve what models.config says."""
    found = fakes(stack, count)
    repo.reload(endpoints=at(found), wait=10)
    return found


@pytest.mark.tf
def test_a_switch_of_two_servers_changes_both_and_shows_the_answer_of_each(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with (
        live_server(repo, log=tmp_path / "a.log") as one,
        live_server(repo, log=tmp_path / "b.log") as other,
    ):
        up = repo.serve("half@2", endpoints=[one, other], wait=30)
        assert [(item.endpoint, item.follows) for item in up.endpoints] == [
            (str(one), True),
            (str(other), True),
        ]
        assert [ask(one), ask(other)] == [(2, 3.0), (2, 3.0)]
        down = command(
            *("--root", repo.root, "rollback", "half"),
            *("--endpoint", str(one), "--endpoint", str(other), "--wait", "30"),
        )
        assert down.code == 0, down.err
        assert f"{one}: half@1 answers" in down.out
        assert f"{other}: half@1 answers" in down.out
        assert [loaded(one), loaded(other)] == [{1}, {1}]


def test_endpoints_are_switched_at_once_not_one_after_the_other(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 8)
    for one in found:
        one.load_seconds = 1.0
    begun = time.monotonic()
    repo.serve("half@2", endpoints=at(found), wait=30)
    assert time.monotonic() - begun < sum(one.load_seconds for one in found)
    assert {answering(one) for one in at(found)} == {2}


def test_one_endpoint_that_cannot_load_it_puts_all_back(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 3)
    found[1].fails = {2}
    with pytest.raises(SwitchFailed, match="could not load half@2") as failed:
        repo.serve("half@2", endpoints=at(found), wait=10)
    assert failed.value.details["put_back"] is True
    assert failed.value.details["endpoints"] == {str(one): "back where it was" for one in at(found)}
    assert str(at(found)[1]) in failed.value.message
    assert [answering(one) for one in at(found)] == [1, 1, 1]
    assert pins(read_config(repo.value).config, "half") == (1,)


def test_a_rollback_with_an_endpoint_down_is_refused_unless_that_many_may_be(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    repo.serve("half@2")
    found = fleet_of(repo, fleet, 2)
    down = f"127.0.0.1:{free_port()}"
    everywhere = [*map(str, at(found)), down]
    with pytest.raises(EndpointUnreachable):
        repo.rollback("half", endpoints=everywhere, wait=5)
    assert [answering(one) for one in at(found)] == [2, 2]
    done = repo.rollback("half", endpoints=everywhere, wait=5, rules=Rules(allow_down=1))
    assert [one.follows for one in done.endpoints] == [True, True, False]
    assert done.endpoints[2].endpoint == down
    assert [answering(one) for one in at(found)] == [1, 1]
    assert [one.endpoint for one in read_lagging(repo.value)] == [down]
    shown = command("--root", repo.root, "rollback", "half", "--to", "2", "--allow-down", "1")
    assert shown.code == 34, "marked bad by the rollback before"


def test_at_least_one_server_has_to_follow(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    before = repo.value.layout.config.read_bytes()
    events = list(repo.history())
    down = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    for endpoints, allowed in ((down[:1], 1), (down, 2), (down, 9)):
        with pytest.raises(EndpointUnreachable) as refused:
            repo.serve("half@2", endpoints=endpoints, wait=5, rules=Rules(allow_down=allowed))
        assert f"{allowed} of the endpoints may be down, but never all" in (
            refused.value.hint or ""
        )
        said = "\n".join((refused.value.message, *refused.value.problems))
        assert all(one in said for one in endpoints)
    assert repo.value.layout.config.read_bytes() == before
    assert list(repo.history()) == events
    assert read_lagging(repo.value) == ()


@pytest.mark.tf
def test_the_last_server_may_not_go_on_the_way(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    before = repo.value.layout.config.read_bytes()
    with running_server(repo, log=tmp_path / "log") as (endpoint, process):
        serve = started(
            *("--root", repo.root, "serve", "half@2", "--allow-down", "2", "--wait", "5"),
            *("--endpoint", str(endpoint), "--endpoint", f"127.0.0.1:{free_port()}"),
            failpoint="switch.stage-told",
            folder=tmp_path,
            seconds=2,
        )
        process.kill()
        process.wait()
        _, said = serve.communicate(timeout=60)
    assert serve.returncode == 67, said
    assert repo.value.layout.config.read_bytes() == before


@pytest.mark.tf
def test_an_endpoint_that_was_down_follows_when_reload_finds_it(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    repo.serve("half@2")
    with (
        live_server(repo, log=tmp_path / "a.log") as one,
        running_server(repo, log=tmp_path / "b.log") as (other, process),
    ):
        process.send_signal(signal.SIGSTOP)
        try:
            done = repo.rollback("half", endpoints=[one, other], wait=40, rules=Rules(allow_down=1))
        finally:
            process.send_signal(signal.SIGCONT)
        assert [item.follows for item in done.endpoints] == [True, False]
        assert [ask(one)[0], ask(other)[0]] == [1, 2]
        assert not repo.status(endpoints=[one, other]).ok
        repo.reload(endpoints=[one, other], wait=30)
        assert ask(other) == (1, 2.0)
        assert read_lagging(repo.value) == ()


@pytest.mark.tf
def test_nothing_newer_is_sent_to_a_server_that_still_hangs_in_an_old_reload(
    tmp_path: Path,
) -> None:
    repo = two_versions(tmp_path)
    hanging = pin(
        read_config(repo.value).config, name="other", base_path=str(tmp_path / "o"), versions=[1]
    )
    with live_server(repo, log=tmp_path / "log") as endpoint:
        with ServingClient(endpoint) as client, pytest.raises(ServerTimeout):
            client.reload(to_proto(hanging), timeout=1)
        noted = LaggingServer(endpoint=str(endpoint), since="now", why="it hung", uncertain=True)
        note_lagging(repo.value, [noted])
        with pytest.raises(EndpointUnreachable, match="lags since now"):
            repo.serve("half@2", endpoints=[endpoint], wait=2)
        assert read_lagging(repo.value) == (noted,)
        assert pins(read_config(repo.value).config, "half") == (1,)
        shutil.copytree(tmp_path / "serving/models/half/1", tmp_path / "o/1")
        repo.serve("half@2", endpoints=[endpoint], wait=40)
        assert ask(endpoint) == (2, 3.0)
        assert read_lagging(repo.value) == ()
        assert repo.status(endpoints=[endpoint], wait=10).ok


@pytest.mark.tf
def test_a_probe_that_is_not_answered_as_expected_puts_all_back(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps([{"inputs": {"x": [2.0]}, "outputs": {"y": [3.0]}}]))
    right = tmp_path / "right.json"
    right.write_text(cases.read_text().replace("3.0", "4.0"))
    with live_server(repo, log=tmp_path / "log") as endpoint:
        with pytest.raises(SwitchFailed, match="probe cases") as failed:
            repo.serve(
                "half@2", endpoints=[endpoint], wait=30, rules=Rules(probes=load_cases(cases))
            )
        assert failed.value.problems
        assert ask(endpoint) == (1, 2.0)
        repo.serve("half@2", endpoints=[endpoint], wait=30, rules=Rules(probes=load_cases(right)))
        assert ask(endpoint) == (2, 3.0)


def test_endpoints_come_from_the_environment_that_is_named(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 3)
    staging, prod, other = map(str, at(found))
    (repo.root / "servingrepo.toml").write_text(
        f'[models.half]\nendpoints = ["{other}"]\n'
        f'[environments.staging]\nendpoints = "{staging}"\n'
        f'[environments.prod]\nendpoints = ["{prod}"]\nwait = 20\nallow_down = 1\n'
    )
    done = command("--root", repo.root, "serve", "half@2", "--env", "prod", "--json")
    assert done.code == 0, done.err
    assert [one["endpoint"] for one in done.json["result"]["endpoints"]] == [prod]
    assert [answering(one) for one in at(found)] == [1, 2, 1]
    default = command("--root", repo.root, "serve", "half@2", "--json")
    assert [one["endpoint"] for one in default.json["result"]["endpoints"]] == [other]
    unknown = command("--root", repo.root, "status", "--env", "production")
    assert unknown.code == 10
    assert "prod, staging" in unknown.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_switch_that_is_interrupted_puts_all_back_and_says_so(
    tmp_path: Path, fleet: ExitStack, number: signal.Signals
) -> None:
    repo = two_versions(tmp_path)
    found = fleet_of(repo, fleet, 3)
    for one in found:
        one.load_seconds = 60
    arguments = [part for one in at(found) for part in ("--endpoint", str(one))]
    with ending(
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "servingrepo",
                "--root",
                repo.root,
                "serve",
                "half@2",
                *arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        end = time.monotonic() + 30
        while time.monotonic() < end and any(len(one.reloads) < 2 for one in found):
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "interrupted; back where it was: half serves 1" in said
    assert [one.reloads[-1] for one in found] == [to_proto(read_config(repo.value).config)] * 3
    assert pins(read_config(repo.value).config, "half") == (1,)
    assert read_lagging(repo.value) == ()


def test_a_server_of_another_models_list_is_written_down_and_settled_before_its_next_change(
    tmp_path: Path, fleet: ExitStack
) -> None:
    """Every server has the whole of models.config: a list says whom a model's changes wait for."""
    repo = two_versions(tmp_path)
    for number in (1, 2):
        run = run_with(tmp_path / f"o{number}", offset=float(number))
        repo.promote(run, model="other", smoke=False, serve=number == 1)
    found = fleet_of(repo, fleet, 2)
    ours, others = map(str, at(found))
    (repo.root / "servingrepo.toml").write_text(
        f'[models.half]\nendpoints = ["{ours}"]\n[models.other]\nendpoints = ["{others}"]\n'
    )
    done = command("--root", repo.root, "serve", "half@2")
    assert done.code == 0, done.err
    assert [answering(one) for one in at(found)] == [2, 1]
    (behind,) = read_lagging(repo.value)
    assert (behind.endpoint, behind.uncertain) == (others, False)
    assert "not reloaded for half" in behind.why
    status = command("--root", repo.root, "status")
    assert f"{others}: half@2 is pinned but not loaded" in status.err
    sent = len(found[1].reloads)
    changed = command("--root", repo.root, "serve", "other@2")
    assert changed.code == 0, changed.err
    pinned = [
        {
            entry.name: tuple(entry.model_version_policy.specific.versions)
            for entry in config.model_config_list.config
        }
        for config in found[1].reloads[sent:]
    ]
    assert pinned[:2] == [{"half": (1, 2), "other": (1,)}, {"half": (2,), "other": (1,)}]
    assert pinned[2]["other"] == (1, 2)
    assert [one.endpoint for one in read_lagging(repo.value)] == [ours]
    assert command("--root", repo.root, "reload").code == 0
    assert command("--root", repo.root, "status", "--wait", "5").code == 0
    assert read_lagging(repo.value) == ()
