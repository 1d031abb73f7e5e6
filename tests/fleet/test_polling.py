"""Servers that poll models.config: the steps of a switch go through the file."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import ServerTimeout, SwitchFailed
from servingrepo.fleet.rules import Rules
from servingrepo.modelconfig import entry
from servingrepo.repository.config import pins, read_config
from tests.fleet.test_switch import loaded, two_versions
from tests.support import ask, command, live_server, run_with

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.tf

POLL = Rules(poll=True)
EVERY_SECOND = "--model_config_file_poll_wait_seconds=1"


def test_a_server_that_polls_the_file_is_switched_with_its_labels_and_back(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    repo.label_set("half@1", "stable")
    with live_server(repo, EVERY_SECOND, log=tmp_path / "log") as endpoint:
        repo.serve("half@2", endpoints=[endpoint], rules=POLL, wait=30)
        repo.label_set("half@2", "stable", endpoints=[endpoint], rules=POLL, wait=30)
        assert ask(endpoint) == ask(endpoint, label="stable") == (2, 3.0)
        assert loaded(endpoint) == {2}
        down = command(
            *("--root", repo.root, "rollback", "half", "--endpoint", str(endpoint)),
            *("--reload", "poll", "--to", "1"),
        )
        assert down.code == 0, down.err
        assert ask(endpoint) == ask(endpoint, label="stable") == (1, 2.0)
        repo.reload(endpoints=[endpoint], poll=True, wait=20)
        assert repo.status(endpoints=[endpoint]).ok


def test_a_version_that_a_polling_server_cannot_load_puts_the_file_back(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    repo.promote(run_with(tmp_path / "c", offset=4.0), model="half", smoke=False, serve=False)
    graph = tmp_path / "serving/models/half/3/saved_model.pb"
    graph.write_bytes(bytes(len(graph.read_bytes())))
    text = repo.value.layout.config.read_bytes()
    with live_server(repo, EVERY_SECOND, log=tmp_path / "log") as endpoint:
        with pytest.raises(SwitchFailed, match="back where it was"):
            repo.serve("half@3", endpoints=[endpoint], rules=POLL, wait=20)
        assert repo.value.layout.config.read_bytes() == text
        assert loaded(endpoint) == {1}
    assert [event.action for event in repo.history("half")] == ["promote"] * 3


def test_a_switch_by_file_that_was_killed_between_its_files_is_in_the_history(
    tmp_path: Path,
) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, EVERY_SECOND, log=tmp_path / "log") as endpoint:
        arguments = ("serve", "half@2", "--endpoint", str(endpoint), "--reload", "poll")
        killed = command(
            *("--root", repo.root, *arguments),
            env={"SERVINGREPO_FAILPOINTS": "switch.file-between@1=kill"},
        )
        assert killed.code == -signal.SIGKILL
        assert pins(read_config(repo.value).config, "half") == (1, 2)
        recovered = repo.recover()
        assert [one.command for one in recovered] == ["serve"], recovered
        assert "cut short" in recovered[0].outcome
        last = list(repo.history("half"))[-1]
        assert (last.after, last.recovered) == ((1, 2), True)
        again = command("--root", repo.root, *arguments)
        assert again.code == 0, again.err
        assert loaded(endpoint) == {2}
    found = entry(read_config(repo.value).config, "half")
    assert found is not None
    assert found.versions == (2,)


def test_a_server_that_does_not_poll_is_suspected_of_it(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    text = repo.value.layout.config.read_bytes()
    flag = "--model_config_file_poll_wait_seconds"
    with live_server(repo, log=tmp_path / "log") as endpoint:
        for change in (partial(repo.serve, "half@2"), partial(repo.unserve, "half")):
            with pytest.raises(SwitchFailed, match="back where it was") as failed:
                change(endpoints=[endpoint], rules=POLL, wait=2)
            assert flag in (failed.value.hint or "")
            assert repo.value.layout.config.read_bytes() == text
        repo.serve("half@2")
        with pytest.raises(ServerTimeout) as late:
            repo.reload(endpoints=[endpoint], poll=True, wait=2)
        assert flag in (late.value.hint or "")
        # By RPC it follows.
        repo.reload(endpoints=[endpoint], wait=20)
        assert loaded(endpoint) == {2}


def test_going_back_says_how_long_it_took_beyond_the_limit(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        done = command(
            *("--root", repo.root, "serve", "half@2", "--endpoint", str(endpoint)),
            *("--reload", "poll", "--wait", "1"),
        )
    assert done.code == 67
    assert "putting back took " in done.err
    assert "which --wait does not count; it may take 60 s" in done.err
