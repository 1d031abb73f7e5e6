"""adopt beside running servers: they load nothing, unload nothing, and answer as before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from servingrepo.deadline import Deadline
from servingrepo.servers.client import ServingClient
from servingrepo.smoke.run import await_version
from tests.support import ask, command, live_server, new_repository
from tests.verbs.trees import entry, pins, taken, versions

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint

pytestmark = [pytest.mark.tf, pytest.mark.timeout(180)]


def tree(root: Path) -> OpenRepository:
    """Make a tree with a policy, with labels, and with an entry of another model's versions."""
    models = root / "models"
    versions(models / "ranker", 3, 7)
    versions(models / "lr", 20240501, 20240601)
    versions(models / "every", 1, 2)
    return taken(
        root,
        entry(root, "ranker"),
        entry(
            root,
            "lr",
            pins(20240501, 20240601)
            + ' version_labels { key: "stable" value: 20240501 }'
            + ' version_labels { key: "canary" value: 20240601 }',
        ),
        entry(root, "every", "model_version_policy { all {} }"),
    )


def await_both(endpoint: Endpoint) -> None:
    """Wait for both versions of lr: a server listens once each model has one."""
    with ServingClient(endpoint) as client:
        for number in (20240501, 20240601):
            await_version(client, model="lr", version=number, deadline=Deadline.after(30))


def said(
    endpoint: Endpoint,
    *names: str,
    labels: tuple[str, ...] = ("stable", "canary"),
) -> dict[str, Any]:
    """Return what a server says of its models, by name and by labels of lr: states that are not over, and answers."""
    with ServingClient(endpoint) as client:
        found: dict[str, Any] = {}
        for name in names or ("ranker", "lr", "every"):
            states = client.status(name, timeout=10)
            found[name] = sorted((one.version, one.state) for one in states if one.state != "END")
            found[f"{name}, answering"] = client.metadata(name, timeout=10).version
        for label in labels:
            found[label] = client.metadata("lr", label=label, timeout=10).version
    return found


def loads(log: Path) -> list[str]:
    """Return the lines of a server's log about versions that came or went."""
    return [line for line in log.read_text().splitlines() if " of model " in line]


@pytest.mark.parametrize("polls", [False, True])
def test_servers_load_and_unload_nothing(polls: bool, tmp_path: Path, fleet: ExitStack) -> None:
    repo = tree(tmp_path)
    log = tmp_path / "log"
    flags = ["--model_config_file_poll_wait_seconds=1"] if polls else []
    endpoint = fleet.enter_context(live_server(repo, *flags, log=log))
    await_both(endpoint)
    assert command("--root", tmp_path, "status", "--endpoint", str(endpoint)).code == 68
    before, lines = said(endpoint), loads(log)
    assert lines
    done = command("--root", tmp_path, "adopt", "--all")
    assert done.code == 0, done.err
    time.sleep(3.5)  # it reads the file every second, and looks for versions as often
    assert said(endpoint) == before
    assert loads(log) == lines
    agreed = command("--root", tmp_path, "status", "--endpoint", str(endpoint))
    assert agreed.code == 0, agreed.err
    if not polls:
        reloaded = command("--root", tmp_path, "reload", "--endpoint", str(endpoint))
        assert reloaded.code == 0, reloaded.err
        assert said(endpoint) == before
        assert loads(log) == lines


def test_the_whole_first_day_on_a_live_server(tmp_path: Path, fleet: ExitStack) -> None:
    """Adopt, tell the server, promote beside the adopted versions, go back, and again by number."""
    repo = tree(tmp_path)
    at = str(fleet.enter_context(live_server(repo, log=tmp_path / "log")))
    root = ("--root", tmp_path)
    assert command(*root, "adopt", "--all").code == 0
    run = versions(tmp_path / "runs", 1, 2, 3, 4) / "4"
    promote = ("promote", run, "--model", "ranker", "--no-smoke", "--endpoint", at)
    refused = command(*root, *promote)
    assert refused.code == 68
    assert "servingrepo reload --endpoint" in refused.err
    assert not (tmp_path / "models" / "ranker" / "8").exists()
    assert command(*root, "reload", "--endpoint", at).code == 0
    promoted = command(*root, *promote, "-q")
    assert (promoted.code, promoted.out) == (0, "8\n"), promoted.err
    back = command(*root, "rollback", "ranker", "--endpoint", at)
    assert back.out.startswith("ranker: 8 > 7"), back.err
    again = command(*root, "rollback", "ranker", "--endpoint", at)
    assert again.out.startswith("ranker: 7 > 3"), again.err
    assert "by number" in again.out
    moved = command(*root, "label", "set", "lr@20240601", "stable", "--endpoint", at)
    assert moved.code == 0, moved.err
    assert command(*root, "status", "--endpoint", at).code == 0


@pytest.mark.parametrize("polls", [False, True])
def test_models_at_paths_stay_loaded_and_go_on(
    polls: bool, tmp_path: Path, fleet: ExitStack
) -> None:
    """models/push/lr and models/saved_models: a promotion lands beside their versions, and is served."""
    models, names = tmp_path / "models", ("lr", "email_model")
    versions(models / "push" / "lr", 20240501, 20240601)
    versions(models / "saved_models", 1, 2)
    stable = ' version_labels { key: "stable" value: 20240501 }'
    repo = taken(
        tmp_path,
        entry(*(tmp_path, "lr", pins(20240501, 20240601) + stable), base_path=f"{models}/push/lr"),
        entry(tmp_path, "email_model", base_path=f"{models}/saved_models"),
    )
    log, root = tmp_path / "log", ("--root", tmp_path)
    flags = ["--model_config_file_poll_wait_seconds=1"] if polls else []
    at = fleet.enter_context(live_server(repo, *flags, log=log))
    live = ("--endpoint", str(at), *(("--reload", "poll") if polls else ()))
    await_both(at)
    before, lines = said(at, *names, labels=("stable",)), loads(log)
    assert lines
    done = command(*root, "adopt", "--all")
    assert done.code == 0, done.err
    time.sleep(3.5)  # it reads the file every second, and looks for versions as often
    assert command(*root, "reload", *live).code == 0
    assert said(at, *names, labels=("stable",)) == before
    assert loads(log) == lines
    runs = versions(tmp_path / "runs", 1, 2, 3, 4)
    for name, folder, number in (("lr", "push/lr", 20240602), ("email_model", "saved_models", 3)):
        promote = ("promote", runs / "4", "--model", name, "--no-smoke", "-q")
        promoted = command(*root, *promote, *live)
        assert (promoted.code, promoted.out) == (0, f"{number}\n"), promoted.err
        assert (models / folder / str(number) / "saved_model.pb").is_file()
        assert ask(at, model=name) == (number, 4.0)
        back = command(*root, "rollback", name, *live)
        assert back.code == 0, back.err
    assert said(at, *names, labels=("stable",)) == before
    assert command(*root, "status", "--endpoint", str(at)).code == 0


def test_served_versions_are_proven_first_if_asked(tmp_path: Path) -> None:
    models = tmp_path / "models"
    versions(models / "good", 1, 2)
    versions(models / "bad", 1)
    from servingrepo.testing.exports import Served, write_export

    write_export(models / "bad" / "2", signatures=[Served(fault="nan")])
    repo = new_repository(tmp_path)
    done = repo.adopt((), all=True, smoke=True, engine="embedded")
    assert [one.model for one in done.models] == ["good"]
    assert "1 passed" in done.models[0].proofs[0]
    assert [one.slug for one in done.left] == ["smoke-failed"]
    proofs = {row.version: row.proof for row in repo.show("good").versions}
    assert proofs[1] == "not checked"
    assert proofs[2].startswith("embedded")
    assert repo.models() == ("good",)
