"""A model at push/lr is used like any other: every command, and a real server that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.repository.repository import save_paths, with_paths
from tests.support import Outcome, ask, command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    """A repository in which the folder of the model lr is push/lr."""
    made = new_repository(tmp_path / "serving")
    save_paths(with_paths(made.value, {"lr": "push/lr"}))
    for number in (1.0, 2.0, 3.0, 4.0):
        run_with(tmp_path / f"run{number:.0f}", offset=number)
    return made


def run(repo: OpenRepository, *arguments: str | Path, code: int = 0) -> Outcome:
    done = command("--root", repo.root, *arguments)
    assert done.code == code, (arguments, done)
    return done


def answers(endpoint: Endpoint, *, label: str | None = None) -> float:
    """Return what the model says to 0, which is the offset of its run."""
    return ask(endpoint, model="lr", label=label)[1]


@pytest.mark.tf
def test_every_command_works_on_a_model_with_a_path(repo: OpenRepository, tmp_path: Path) -> None:
    """With a smoke test of the staging copy, and a server that gets every change."""
    runs = [tmp_path / f"run{number}" for number in (1, 2, 3, 4)]
    run(repo, "promote", runs[0], "--model", "lr", "--engine", "embedded")
    with live_server(repo, log=tmp_path / "log") as endpoint:
        at = ("--endpoint", str(endpoint))
        for number in (1, 2):
            run(repo, "promote", runs[number], "--model", "lr", "--no-smoke", *at)
        assert answers(endpoint) == 3.0
        run(repo, "label", "set", "lr@2", "stable", *at)
        assert answers(endpoint, label="stable") == 2.0
        run(repo, "rollback", "lr", *at)
        assert answers(endpoint) == 2.0
        run(repo, "serve", "lr@1", *at)
        assert answers(endpoint) == 1.0
        status = run(repo, "status", *at, "--json").json["result"]["models"]
        assert [(one["model"], one["on_disk"], one["drift"]) for one in status] == [
            ("lr", [1, 2, 3], [])
        ]
        run(repo, "prune", "lr", "--keep-last", "1", *at)
        run(repo, "promote", runs[3], "--model", "lr", "--no-smoke", "--serve", *at)
        assert answers(endpoint) == 4.0
    folders = sorted(one.name for one in (repo.root / "models" / "push" / "lr").iterdir())
    assert folders[-1] == "4"
    assert {one.name for one in (repo.root / "models").iterdir()} == {"models.config", "push"}


def test_a_pruned_version_comes_back_to_its_path(repo: OpenRepository, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        run(repo, "promote", tmp_path / f"run{number}", "--model", "lr", "--no-smoke")
    base = repo.root / "models" / "push" / "lr"
    run(repo, "prune", "lr", "--keep-last", "1")
    assert not (base / "1").exists()
    assert "lr@1" in run(repo, "verify", "lr@1").out
    run(repo, "restore", "lr@1")
    assert (base / "1" / "saved_model.pb").is_file()
    run(repo, "prune", "lr", "--keep-last", "1", "--empty-trash")
    assert {one.name for one in base.iterdir()} == {"3", "4", ".staging", ".trash"}


def test_readers_show_a_model_with_a_path_as_any(repo: OpenRepository, tmp_path: Path) -> None:
    for number in (1, 2):
        run(repo, "promote", tmp_path / f"run{number}", "--model", "lr", "--no-smoke")
    (listed,) = run(repo, "list", "--json").json["result"]
    assert (listed["model"], listed["ours"], listed["elsewhere"], listed["served"]) == (
        *("lr", True, "", 2),
    )
    assert [one["version"] for one in run(repo, "show", "lr", "--json").json["result"]["versions"]]
    assert "push/lr/2" in run(repo, "verify", "lr", "--json").out
    assert run(repo, "verify", "--max-seconds", "60").code == 0
    assert run(repo, "diff", "lr@1", "lr@2").code == 0
    assert run(repo, "status").code == 0
    assert "push" not in run(repo, "list").out
    checked = run(repo, "config", "check", "--json").json["result"]
    assert (checked["findings"], checked["base_paths_not_looked_at"]) == ([], [])


def test_a_killed_promotion_to_a_path_is_recovered(repo: OpenRepository, tmp_path: Path) -> None:
    """Once before its number appears and once after: it has not happened, or it has and history says so."""
    run(repo, "promote", tmp_path / "run1", "--model", "lr", "--no-smoke")
    base = repo.root / "models" / "push" / "lr"
    for number, step, there in ((2, "record.done", False), (3, "c1.after-rename", True)):
        died = command(
            *("--root", repo.root, "promote", tmp_path / f"run{number}", "--model", "lr"),
            "--no-smoke",
            env={"SERVINGREPO_FAILPOINTS": f"{step}=kill"},
        )
        assert died.code == -9
        run(repo, "recover")
        assert (base / str(number)).exists() == there
        assert list((base / ".staging").iterdir()) == []
        assert (run(repo, "verify", f"lr@{number}", code=0 if there else 32)).code in {0, 32}
    assert [event.version for event in repo.history("lr")] == [1, 3]


def test_a_repository_with_paths_says_which_folder_is_taken(
    repo: OpenRepository, tmp_path: Path
) -> None:
    refused = run(repo, "promote", tmp_path / "run1", "--model", "push", "--no-smoke", code=11)
    assert "models/push/lr" in refused.err
