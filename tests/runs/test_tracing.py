from __future__ import annotations

import json
from typing import TYPE_CHECKING

from servingrepo.masking import MASK
from servingrepo.repository.records import VersionRecord, decode
from tests.support import command, git, new_repository, run_with, work_tree

if TYPE_CHECKING:
    from pathlib import Path


def test_promote_records_commit_config_command_and_pipeline(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    commit = work_tree(tmp_path / "code")
    run = run_with(tmp_path / "code/runs/1", offset=1)
    (run / "config.json").write_text(json.dumps({"model": {"layers": [2, 3]}, "lr": 0.5}))
    arguments = ["--root", str(repo.root), "promote", str(run), "--model", "m", "--no-smoke"]
    env = {"GITHUB_RUN_ID": "17", "GITHUB_SHA": commit}
    assert command(*arguments, cwd=tmp_path, env=env).code == 0
    origin = repo.show_version("m").origin
    assert origin.code is not None
    assert (origin.code.commit, origin.code.branch, origin.code.dirty) == (commit, "main", False)
    assert origin.code.of == "run"
    assert origin.config == {"model/layers": "[2, 3]", "lr": "0.5"}
    assert list(origin.config_files) == ["config.json"]
    assert origin.pipeline["GITHUB_RUN_ID"] == "17"
    assert origin.command.startswith("servingrepo --root ")
    shown = command("--root", repo.root, "show", "m@1").out
    for said in (f"git {commit}, main, clean", "GITHUB_RUN_ID=17", "lr          0.5", "command "):
        assert said in shown
    assert f"(git {commit[:12]})" in command("--root", repo.root, "history").out


def test_promote_says_when_files_differ_from_the_commit(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    commit = work_tree(tmp_path / "code")
    (tmp_path / "code/train.py").write_text("print(2)\n")
    run = run_with(tmp_path / "elsewhere", offset=1)
    arguments = ["--root", str(repo.root), "promote", str(run), "--model", "m", "--no-smoke"]
    assert command(*arguments, cwd=tmp_path / "code").code == 0
    code = repo.show_version("m").origin.code
    assert code is not None
    assert (code.commit, code.dirty, code.of) == (commit, True, "working directory")
    assert f"{commit[:12]}+" in command("--root", repo.root, "show", "--lineage").out


def test_without_git_only_the_commit_is_known(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "repo")
    commit = work_tree(tmp_path / "code")
    run = run_with(tmp_path / "code/run", offset=1)
    arguments = ["--root", str(repo.root), "promote", str(run), "--model", "m", "--no-smoke"]
    assert command(*arguments, env={"PATH": "/nowhere"}).code == 0
    code = repo.show_version("m").origin.code
    assert code is not None
    assert (code.commit, code.dirty) == (commit, None)
    assert "not checked for changes" in command("--root", repo.root, "show", "m@1").out


def test_promote_runs_nothing_that_a_repository_names(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    work_tree(tmp_path / "code")
    git(tmp_path / "code", "config", "core.fsmonitor", f"touch {tmp_path}/ran")
    run = run_with(tmp_path / "code/run", offset=1)
    repo.promote(run, model="m", smoke=False)
    assert repo.show_version("m").origin.code is not None
    assert not (tmp_path / "ran").exists()


def test_promote_records_no_secret_anywhere(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    run = run_with(tmp_path / "run", offset=1)
    config = {
        "api_token": "s3cr3t",
        "nested": [{"password": "s3cr3t"}, [[{"token": "s3cr3t"}]]],
        "deep": {"a": {"b": {"c": {"d": {"e": {"password": "s3cr3t"}}}}}},
        "db": "mysql://u:s3cr3t@host/x",
        "a": {"aws": {"secret_access_key": "s3cr3t"}},
    }
    (run / "config.json").write_text(json.dumps(config))
    (run / "params.toml").write_text('hub_token = "s3cr3t"\n')
    arguments = ["--root", str(repo.root), "promote", str(run), "--model", "m", "--no-smoke"]
    env = {"CI_PIPELINE_URL": "https://ci:s3cr3t@host/1", "GITHUB_TOKEN": "s3cr3t"}
    done = command(*arguments, "-m", "--token=s3cr3t-is-my-own-words", env=env)
    assert done.code == 0
    origin = repo.show_version("m").origin
    assert "s3cr3t" not in repr(origin)
    assert origin.config["api_token"] == MASK
    assert origin.config["db"] == "mysql://***@host/x"


def test_lineage_says_the_run_of_each_served_version(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    for number, model in enumerate(("a", "a", "b")):
        run = run_with(tmp_path / f"run{number}", offset=number)
        repo.promote(run, model=model, smoke=False)
    rows = repo.lineage()
    assert [(row.model, row.version, row.run) for row in rows] == [
        ("a", 2, str(tmp_path / "run1")),
        ("b", 1, str(tmp_path / "run2")),
    ]
    assert all(row.since and row.served for row in rows)
    assert [row.version for row in repo.lineage("a@1")] == [1]
    done = command("--root", repo.root, "show", "--lineage", "--json")
    assert [row["model"] for row in done.json["result"]] == ["a", "b"]
    assert command("--root", repo.root, "show", "--lineage", "nothing").code == 32
    assert command("--root", repo.root, "show").code == 2


def test_a_record_from_before_there_was_an_origin_is_still_read(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "repo")
    repo.promote(run_with(tmp_path / "run", offset=1), model="m", smoke=False)
    path = repo.value.layout.record("m", 1)
    old = json.loads(path.read_bytes())
    del old["origin"]
    path.write_text(json.dumps(old))
    assert decode(path.read_bytes(), VersionRecord, path).origin.code is None
    assert repo.lineage()[0].run == str(tmp_path / "run")
