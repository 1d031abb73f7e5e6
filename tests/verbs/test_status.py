"""What `status` says of servers that differ, and how scripts follow it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from servingrepo.modelconfig import pin, to_proto
from servingrepo.repository.config import read_config
from servingrepo.repository.lagging import LaggingServer, note_lagging
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.processes import free_port
from servingrepo.testing.fake_models import FakeModels
from tests.fleet.test_fleet import at, fakes, fleet_of
from tests.fleet.test_switch import two_versions
from tests.support import command, run_with

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint


def tell(repo: OpenRepository, endpoint: Endpoint, versions: list[int], **labels: int) -> None:
    """Have one server serve something of its own."""
    config = pin(
        read_config(repo.value).config,
        name="half",
        base_path=repo.value.base_path("half"),
        versions=versions,
        labels=labels,
    )
    with ServingClient(endpoint) as client:
        client.reload(to_proto(config), timeout=5)


def test_status_gives_each_difference_its_reason(tmp_path: Path, fleet: ExitStack) -> None:
    repo = two_versions(tmp_path)
    repo.label_set("half@1", "stable")
    repo.label_set("half@2", "canary", serve=True)
    right, old, moved, broken, slow = found = fleet_of(repo, fleet, 5)
    tell(repo, at([old])[0], [1])
    tell(repo, at([moved])[0], [1, 2], stable=2)
    broken.fails = {2}
    slow.load_seconds = 60
    tell(repo, at([slow])[0], [1])
    assert repo.status(endpoints=at([slow])).models[0].endpoints[0].available == (1,)
    tell(repo, at([slow])[0], [1, 2])
    down = f"127.0.0.1:{free_port()}"
    status = repo.status(endpoints=[*at(found), down])
    (row,) = status.models
    reasons = {
        str(one): {item.reason for item in row.drift if item.endpoint == str(one)}
        for one in [*at(found), down]
    }
    assert reasons == {
        str(at([right])[0]): set(),
        str(at([old])[0]): {"not-loaded", "label-missing"},
        str(at([moved])[0]): {"label-missing", "label-elsewhere"},
        str(at([broken])[0]): {"failed"},
        str(at([slow])[0]): {"loading", "label-missing"},
        down: {"no-answer"},
    }
    shown = command(
        *("--root", repo.root, "status"),
        *(part for one in [*at(found), down] for part in ("--endpoint", str(one))),
    )
    assert shown.code == 68
    assert "6 SERVERS" in shown.out, "too many for a column each"
    assert "the fake was told to fail" in shown.err
    assert shown.err.strip().splitlines()[-1].startswith("hint: servingrepo rollback half")


def test_status_says_for_how_long_a_version_has_been_loading(
    tmp_path: Path,
    fleet: ExitStack,
) -> None:
    repo = two_versions(tmp_path)
    (one,) = found = fakes(fleet, 1, load_seconds=60)
    assert isinstance(one, FakeModels)
    tell(repo, at(found)[0], [1])
    *_, last = repo.watch(endpoints=at(found), wait=2.5)
    (drift,) = last.models[0].drift
    assert drift.reason == "loading"
    assert re.search(r", for [2-9] s now", drift.message)


def test_status_watched_streams_one_object_per_change_and_ends_when_all_agree(
    tmp_path: Path,
    fleet: ExitStack,
) -> None:
    repo = two_versions(tmp_path)
    found = fakes(fleet, 2, load_seconds=4)
    for endpoint in at(found):
        tell(repo, endpoint, [1])
    arguments = [part for one in at(found) for part in ("--endpoint", str(one))]
    done = command("--root", repo.root, "status", *arguments, "--watch", "--wait", "20", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0, done.err
    assert [line["ok"] for line in lines][-1] is True
    assert len(lines) < 6, "only what changed"
    assert {line["command"] for line in lines} == {"status"}


def test_status_lists_endpoints_that_were_left_behind_and_says_what_to_type(
    tmp_path: Path,
    fleet: ExitStack,
) -> None:
    repo = two_versions(tmp_path)
    (endpoint,) = map(str, at(fleet_of(repo, fleet, 1)))
    noted = LaggingServer(endpoint=endpoint, since="2026-11-22", why="it hung", uncertain=True)
    note_lagging(repo.value, [noted])
    shown = command("--root", repo.root, "status")
    assert shown.code == 0
    assert f"behind: {endpoint} since 2026-11-22: it hung" in shown.out
    assert shown.out.splitlines()[-1] == f"next: servingrepo reload --endpoint {endpoint}"
    asked = repo.status(endpoints=[endpoint])
    assert [one.reason for one in asked.models[0].drift] == ["uncertain"]
    repo.reload(endpoints=[endpoint], wait=10)
    assert repo.status(endpoints=[endpoint]).ok


def test_status_watched_says_nothing_new_while_a_command_only_goes_on(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    down = f"127.0.0.1:{free_port()}"
    serving = subprocess.Popen(
        [sys.executable, "-m", "servingrepo", "--root", repo.root, "serve", "half@2"],
        env={**os.environ, "SERVINGREPO_FAILPOINTS": "intent.done=sleep:60"},
    )
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end and not repo.status().running:
            time.sleep(0.1)
        shown = command("--root", repo.root, "status", "--endpoint", down, "--watch", "--wait", "3")
    finally:
        serving.kill()
        serving.wait()
    assert "running: serve of half" in shown.out
    assert shown.out.count("-- ") == 1, shown.out


def test_status_asks_again_when_the_config_changed_while_a_server_kept_it_waiting(
    tmp_path: Path, fleet: ExitStack
) -> None:
    repo = two_versions(tmp_path)
    (quick,) = at(fleet_of(repo, fleet, 1))
    # Something that accepts and never answers keeps every look waiting for seconds.
    silent = fleet.enter_context(socket.create_server(("127.0.0.1", 0)))
    changing = threading.Timer(1.0, repo.serve, ["half@2"], {"endpoints": [quick]})
    changing.start()
    hangs = f"127.0.0.1:{silent.getsockname()[1]}"
    (row,) = repo.status(endpoints=[quick, hangs]).models
    changing.join()
    assert row.pinned == (2,)
    assert [one.reason for one in row.drift if one.endpoint == str(quick)] == []


def test_a_dead_server_is_said_once_and_not_for_each_model(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    for name in ("other", "third"):
        repo.promote(run_with(tmp_path / name, offset=3.0), model=name, smoke=False)
    down = f"127.0.0.1:{free_port()}"
    done = command("--root", repo.root, "status", "--endpoint", down)
    assert done.code == 68
    assert done.err.count(f"answers at {down}") == 1, done.err
    assert done.out.count("no answer") == 3, "each model's row has its cell"
    details = command("--root", repo.root, "status", "--endpoint", down, "--json").json["error"]
    rows = details["details"]["status"]["models"]
    assert [one["drift"][0]["reason"] for one in rows] == ["no-answer"] * 3
    watched = command("--root", repo.root, "status", "--endpoint", down, "--watch", "--wait", "0.5")
    assert watched.out.count(f"answers at {down}") == 1


def test_who_named_a_dead_server_is_said_with_how_to_leave_it_out(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    down = f"127.0.0.1:{free_port()}"
    serve = ("--root", repo.root, "serve", "half@2", "--wait", "2")
    typed = command(*serve, "--endpoint", down)
    assert (typed.code, "names the endpoints" in typed.err) == (65, False)
    by_variable = {"SERVINGREPO_ENDPOINT": down}
    assert "SERVINGREPO_ENDPOINT names the endpoints" in command(*serve, env=by_variable).err
    own = {"SERVINGREPO_SERVE_ENDPOINT": down}
    assert "SERVINGREPO_SERVE_ENDPOINT names the endpoints" in command(*serve, env=own).err
    settings = repo.root / "servingrepo.toml"
    settings.write_text(f'endpoints = ["{down}"]\n')
    assert f"{settings} names the endpoints" in command(*serve).err
    # What is said works.
    assert command(*serve, env={"SERVINGREPO_ENDPOINT": ""}).code == 65, "a file is below that"
    settings.unlink()
    assert command(*serve, env={"SERVINGREPO_ENDPOINT": ""}).code == 0
