from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from servingrepo.cli.main import COMMANDS
from servingrepo.testing.exports import write_export
from tests.cli import inside
from tests.support import Outcome, command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUCCESSES = {
    "scan": ["scan", "{run}"],
    "promote": ["promote", "{run}", "--model", "ranker", "--no-smoke"],
    "adopt": ["adopt", "--all", "--dry-run"],
    "verify": ["verify", "ranker"],
    "diff": ["diff", "ranker@1", "{run}"],
    "contract": ["contract", "ranker", "--write"],
    "serve": ["serve", "ranker@1"],
    "unserve": ["unserve", "ranker"],
    "rollback": ["rollback", "ranker"],
    "label set": ["label", "set", "ranker@1", "stable"],
    "hold": ["hold", "ranker", "-m", "why"],
    "release-hold": ["release-hold", "ranker"],
    "config show": ["config", "show"],
    "config check": ["config", "check"],
    "config write": ["config", "write"],
    "status": ["status"],
    "init": ["init"],
    "doctor": ["doctor"],
    "list": ["list"],
    "show": ["show", "ranker@1"],
    "history": ["history"],
    "report": ["report", "-o", "{run}/life.html"],
    "mark-bad": ["mark-bad", "ranker@1"],
    "prune": ["prune", "--keep-last", "1"],
    "recover": ["recover"],
}
NEED_MORE = {"reload", "smoke", "warmup", "export", "restore"}
"""What needs a server, TensorFlow or something in the trash to succeed."""

FAILURES = {
    "scan": (["scan", "{run}/nothing"], "no-saved-model"),
    "promote": (["promote", "{run}", "--model", "7"], "bad-name"),
    "adopt": (["adopt", "nobody"], "no-such-version"),
    "export": (["export", "{run}"], "no-saved-model"),
    "verify": (["verify", "nosuch"], "no-such-version"),
    "diff": (["diff", "ranker@1", "ranker@9"], "no-such-version"),
    "contract": (["contract", "nosuch"], "no-such-version"),
    "smoke": (["smoke", "ranker@9"], "no-such-version"),
    "warmup": (["warmup", "{run}", "--dry-run"], "bad-case"),
    "serve": (["serve", "ranker@9"], "no-such-version"),
    "unserve": (["unserve", "nosuch"], "no-such-version"),
    "rollback": (["rollback", "ranker", "--to", "9"], "no-such-version"),
    "label set": (["label", "set", "ranker@1", "a/b"], "bad-name"),
    "label remove": (["label", "remove", "ranker", "nosuch"], "no-such-version"),
    "hold": (["hold", "nosuch"], "no-such-version"),
    "release-hold": (["release-hold", "nosuch"], "no-such-version"),
    "config check": (["config", "check", "{bad_config}"], "config-invalid"),
    "config write": (["config", "write", "--server-root", "relative"], "config-invalid"),
    "status": (["status", "--endpoint", "127.0.0.1:{port}"], "not-converged"),
    "reload": (["reload", "--endpoint", "127.0.0.1:{port}"], "endpoint-unreachable"),
    "init": (["init", "--server-root", "relative"], "config-invalid"),
    "doctor": (["doctor", "{run}", "--config", "{bad_config}"], "config-invalid"),
    "show": (["show", "ranker@9"], "no-such-version"),
    "history": (["history", "nosuch"], "no-such-version"),
    "report": (["report", "nosuch", "-o", "{run}/life.html"], "no-such-version"),
    "mark-bad": (["mark-bad", "ranker@9"], "no-such-version"),
    "prune": (["prune"], "usage"),
    "restore": (["restore", "ranker@1"], "no-such-version"),
}


def one_object(done: Outcome, *, name: str, ok: bool) -> Any:
    """Check what every answer to --json has; return its result or error."""
    assert done.err == ""
    lines = done.out.splitlines()
    assert len(lines) == 1
    document = json.loads(lines[0])
    assert document["schema"] == 1
    assert document["command"] == name
    assert document["ok"] is ok
    assert set(document) == {"schema", "command", "settings", "ok", "result" if ok else "error"}
    if ok:
        assert done.code == 0
        return document["result"]
    error = document["error"]
    assert error["exit_code"] == done.code != 0
    assert set(error) == {
        *("slug", "exit_code", "retryable", "message", "hint", "problems", "log", "details"),
    }
    return error


def filled(arguments: Sequence[str], root: Path, run: Path) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    bad_config = root.parent / "bad.config"
    bad_config.write_text("model_config_list { config { name: '' } }")
    return [one.format(run=run, port=port, bad_config=bad_config) for one in arguments]


def test_every_command_is_tried() -> None:
    ours = {name for group in COMMANDS.values() for name in group} - {
        *("run-server", "config", "label")
    }
    assert ours - set(SUCCESSES) == NEED_MORE
    # Nothing that a user types can make these fail but the repository itself.
    assert ours - set(FAILURES) == {"list", "recover"}


@pytest.mark.parametrize("name", list(SUCCESSES))
def test_json_of_a_success_is_one_object_on_stdout(name: str, root: Path, run: Path) -> None:
    arguments = filled(SUCCESSES[name], root, run)
    one_object(inside.command("--root", root, *arguments, "--json"), name=name, ok=True)


@pytest.mark.parametrize("name", list(FAILURES))
def test_json_of_a_failure_is_one_object_on_stdout(name: str, root: Path, run: Path) -> None:
    arguments, slug = FAILURES[name]
    done = inside.command("--root", root, "--json", *filled(arguments, root, run))
    error = one_object(done, name=name, ok=False)
    assert error["slug"] == slug
    assert error["message"]


@pytest.mark.parametrize("name", [*SUCCESSES, "smoke", "reload"])
def test_json_of_a_usage_error_is_one_object_on_stdout_wherever_json_stands(name: str) -> None:
    for arguments in (
        ["--json", *name.split(), "--no-such-option"],
        [*name.split(), "--json", "--no-such-option"],
        [*name.split(), "--no-such-option", "--json"],
    ):
        error = one_object(inside.command(*arguments), name=name, ok=False)
        assert (error["slug"], error["exit_code"]) == ("usage", 2)
        assert "--no-such-option" in error["message"]
        assert error["hint"] == f"servingrepo {name} --help"


def test_json_before_there_is_a_command_is_one_object_too(tmp_path: Path) -> None:
    error = one_object(command("--json", "nosuch"), name="", ok=False)
    assert error["slug"] == "usage"
    error = one_object(command("--json"), name="", ok=False)
    assert error["slug"] == "usage"
    (tmp_path / "servingrepo.toml").write_text("nosuch = 1\n")
    error = one_object(command("list", "--json", cwd=tmp_path), name="", ok=False)
    assert error["slug"] == "bad-setting"
    assert error["problems"] == ["nosuch: no such setting or command"]


@pytest.mark.parametrize("value", ["1", "true", "yes", "ON"])
def test_json_may_come_from_the_environment_for_usage_errors_too(value: str) -> None:
    done = command("list", "--nosuch", env={"SERVINGREPO_JSON": value})
    one_object(done, name="list", ok=False)


@pytest.mark.parametrize("group", ["label", "config"])
def test_json_of_a_group_without_a_command_is_one_object_too(group: str) -> None:
    error = one_object(command("--json", group), name=group, ok=False)
    assert (error["message"], error["hint"]) == ("Missing command.", f"servingrepo {group} --help")


def test_json_of_empty_results_is_an_object_too(tmp_path: Path) -> None:
    new_repository(tmp_path)
    for name in ("list", "history", "verify", "recover"):
        assert one_object(command("--root", tmp_path, name, "--json"), name=name, ok=True) == []


def test_json_of_versions_that_are_not_whole_says_what_is_wrong(root: Path) -> None:
    (root / "models" / "ranker" / "2" / "saved_model.pb").write_bytes(b"changed")
    done = command("--root", root, "verify", "--json")
    error = one_object(done, name="verify", ok=False)
    assert error["slug"] == "version-damaged"
    verified = {one["subject"]: one for one in error["details"]["verified"]}
    assert verified["ranker@1"]["differences"]["changed"] == []
    assert verified["ranker@2"]["differences"]["changed"] == ["saved_model.pb"]


def test_json_of_a_path_that_is_not_utf_8_is_still_json(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "r\udcffn"
    write_export(run / "saved_model", offset=7.0)
    found = one_object(command("scan", run, "--json"), name="scan", ok=True)
    assert found["scan"]["run"] == str(run)
    promote = ["promote", str(run), "--model", "ranker", "--no-smoke", "--json"]
    done = one_object(
        command(*promote, env={"SERVINGREPO_ROOT": str(root)}), name="promote", ok=True
    )
    assert done["version"] == 3
    record = one_object(command("--root", root, "show", "ranker@3", "--json"), name="show", ok=True)
    assert "\\udcff" in record["source"]["run"]
    held = command("--root", root, "hold", "ranker", "-m", "\udcff", "--json")
    assert one_object(held, name="hold", ok=True)["why"] == "\\udcff"


def test_json_values_are_those_of_the_python_api(root: Path) -> None:
    import servingrepo

    shown = one_object(command("--root", root, "show", "ranker", "--json"), name="show", ok=True)
    assert shown == json.loads(msgspec.json.encode(servingrepo.open(root).show("ranker")))


@pytest.mark.tf
def test_json_of_commands_that_talk_to_servers(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "run", offset=1.0), model="ranker", smoke=False)
    with live_server(repo, log=tmp_path / "server.log") as endpoint:
        at = ["--root", str(repo.root), "--endpoint", str(endpoint), "--json"]
        done = one_object(command("reload", *at), name="reload", ok=True)
        assert done["models"] == {"ranker": [1]}
        status = one_object(command("status", *at), name="status", ok=True)
        assert [one["available"] for one in status["models"][0]["endpoints"]] == [[1]]
    proof = one_object(
        command("--root", repo.root, "smoke", "ranker", "--engine", "embedded", "--json"),
        name="smoke",
        ok=True,
    )
    assert [one["outcome"] for one in proof["report"]["verdicts"]] == ["passed"]
