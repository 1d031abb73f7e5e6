from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import (
    BadName,
    ConfigInvalid,
    NoSuchVersion,
    RequestRefused,
    UsageError,
    VersionBad,
)
from servingrepo.modelconfig import entry
from servingrepo.repository.config import read_config
from tests.fleet.test_switch import loaded, two_versions
from tests.support import ask, command, live_server, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository


def labels(repo: OpenRepository) -> dict[str, int]:
    found = entry(read_config(repo.value).config, "half")
    return found.labels if found is not None else {}


@pytest.mark.tf
def test_labels_move_on_a_live_server_with_stable_and_canary_side_by_side(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        repo.label_set("half@1", "stable", endpoints=[endpoint], wait=30)
        done = repo.label_set("half@2", "canary", serve=True, endpoints=[endpoint], wait=30)
        assert (done.before, done.after) == ((1,), (1, 2))
        assert ask(endpoint, label="stable") == (1, 2.0)
        assert ask(endpoint, label="canary") == (2, 3.0)
        assert ask(endpoint) == (2, 3.0)
        both = repo.label_set("half@2", "stable", endpoints=[endpoint], wait=30)
        assert both.after == (2,)
        assert ask(endpoint, label="stable") == (2, 3.0)
        assert loaded(endpoint) == {2}
        repo.label_set("half@1", "old", endpoints=[endpoint], wait=30)
        assert ask(endpoint) == (2, 3.0), "a label leaves unlabelled clients alone"
        repo.label_remove("half", "old", endpoints=[endpoint], wait=30)
        assert loaded(endpoint) == {2}
        with pytest.raises(RequestRefused, match="Unrecognized servable version label: old"):
            ask(endpoint, label="old")
        assert repo.status(endpoints=[endpoint]).ok
    assert labels(repo) == {"canary": 2, "stable": 2}
    assert [event.action for event in repo.history("half")][-5:] == ["label"] * 5


@pytest.mark.tf
def test_a_label_on_a_version_that_went_can_be_moved_away_on_a_live_server(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    repo.serve("half@2")
    repo.label_set("half@1", "stable")
    with live_server(repo, log=tmp_path / "log") as endpoint:
        assert ask(endpoint, label="stable") == (1, 2.0)
        shutil.rmtree(tmp_path / "serving/models/half/1")
        end = time.monotonic() + 20
        while loaded(endpoint) != {2} and time.monotonic() < end:
            time.sleep(0.1)
        assert loaded(endpoint) == {2}
        repo.label_set("half@2", "stable", endpoints=[endpoint], wait=30)
        assert ask(endpoint, label="stable") == (2, 3.0)


def test_a_rollback_moves_labels_of_versions_that_went(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    repo.serve("half@2")
    repo.promote(run_with(tmp_path / "c", offset=4.0), model="half", smoke=False)
    repo.label_set("half@1", "old")
    shutil.rmtree(tmp_path / "serving/models/half/1")
    done = repo.rollback("half")
    assert (done.served_after, done.labels, done.after) == (2, {"old": 2}, (2,))


def test_a_label_above_what_is_served_is_refused_because_unlabelled_clients_would_get_it(
    tmp_path: Path,
) -> None:
    repo = two_versions(tmp_path)
    with pytest.raises(UsageError, match="highest loaded version") as refused:
        repo.label_set("half@2", "canary")
    assert refused.value.hint is not None
    assert "--serve" in refused.value.hint
    assert labels(repo) == {}
    repo.unserve("half")
    with pytest.raises(UsageError, match="nothing is served"):
        repo.label_set("half@1", "stable")


def test_labels_that_cannot_be_are_refused(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with pytest.raises(BadName):
        repo.label_set("half@1", "blue/green")
    with pytest.raises(NoSuchVersion, match="has no label canary"):
        repo.label_remove("half", "canary")
    with pytest.raises(NoSuchVersion):
        repo.label_set("half@9", "stable", serve=True)
    repo.mark_bad("half@2")
    with pytest.raises(VersionBad):
        repo.label_set("half@2", "stable", serve=True)


def test_label_commands_print_what_moved(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    dry = command("--root", repo.root, "label", "set", "half@1", "stable", "--dry-run")
    assert dry.code == 0, dry.err
    both = command("--root", repo.root, "serve", "half@2", "--dry-run", "--json")
    sizes = [repo.show_version(f"half@{number}").size for number in (1, 2)]
    assert both.json["result"]["both_loaded"] == sum(sizes)
    assert labels(repo) == {}
    done = command("--root", repo.root, "label", "set", "half@1", "stable")
    assert "stable: none > 1" in done.out
    gone = command("--root", repo.root, "label", "remove", "half", "stable", "--json")
    assert gone.json["command"] == "label remove"
    assert gone.json["result"]["labels"] == {}


@pytest.mark.tf
def test_labels_on_versions_that_went_are_removed_at_once_and_status_says_how(
    tmp_path: Path,
) -> None:
    repo = two_versions(tmp_path)
    repo.serve("half@2")
    for label in ("canary", "stable"):
        repo.label_set("half@1", label)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        (tmp_path / "serving/models/half/1").rename(tmp_path / "gone")
        end = time.monotonic() + 10
        while time.monotonic() < end and loaded(endpoint) != {2}:
            time.sleep(0.1)
        with pytest.raises(ConfigInvalid) as refused:
            repo.label_remove("half", "canary", endpoints=[endpoint])
        assert "servingrepo label remove half stable removes" in (refused.value.hint or "")
        following = repo.status(endpoints=[endpoint]).next.split()
        assert following[1:6] == ["label", "remove", "half", "canary", "stable"]
        done = command("--root", repo.root, *following[1:])
        assert done.code == 0, done.err
        assert (ask(endpoint), labels(repo)) == ((2, 3.0), {})
        assert repo.status(endpoints=[endpoint], wait=5).ok
