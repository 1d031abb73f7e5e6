from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import HookFailed, NoSuchVersion
from servingrepo.fleet.hooks import Hooks
from servingrepo.repository.config import pins, read_config
from tests.fleet.test_switch import two_versions
from tests.support import command, run_with

if TYPE_CHECKING:
    from pathlib import Path


def test_hooks_get_what_is_to_happen_and_what_has_happened(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    hooks = Hooks(before=(f"cat > {tmp_path}/before",), after=(f"cat > {tmp_path}/after",))
    done = repo.serve("half@2", hooks=hooks)
    before = json.loads((tmp_path / "before").read_text())
    after = json.loads((tmp_path / "after").read_text())
    assert (before["when"], before["action"], before["result"]["dry_run"]) == (
        "before",
        "serve",
        True,
    )
    assert before["result"]["after"] == after["result"]["after"] == [2]
    assert after["ok"] is True
    assert [one.trouble for one in done.hooks] == ["", ""]
    repo.rollback("half", hooks=hooks, dry_run=True)
    assert json.loads((tmp_path / "before").read_text())["action"] == "serve", "not in a dry run"


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "half@2"),
        ("rollback", "half", "--to", "2"),
        ("unserve", "half"),
        ("label", "set", "half@1", "stable"),
        ("promote", "{run}", "--model", "half", "--no-smoke"),
    ],
)
def test_a_failing_command_before_stops_the_change(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    repo = two_versions(tmp_path)
    run = run_with(tmp_path / "c", offset=9.0)
    filled = [one.format(run=run) for one in arguments]
    done = command("--root", repo.root, *filled, "--before", "echo freeze until monday; exit 3")
    assert done.code == HookFailed.exit_code
    assert "exit code 3: freeze until monday" in done.err
    assert pins(read_config(repo.value).config, "half") == (1,)
    assert [event.action for event in repo.history()] == ["promote", "promote"]


def test_a_failing_command_after_is_reported_and_changes_nothing(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    (repo.root / "servingrepo.toml").write_text('[serve]\nafter = "echo no mail; exit 1"\n')
    done = command("--root", repo.root, "serve", "half@2")
    assert done.code == 0
    assert "warning: the command after it failed" in done.err
    assert "no mail" in done.err
    assert pins(read_config(repo.value).config, "half") == (2,)


def test_a_command_after_hears_of_a_failure(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with pytest.raises(NoSuchVersion) as failed:
        repo.serve("half@9", hooks=Hooks(after=(f"cat > {tmp_path}/after; false",)))
    said = json.loads((tmp_path / "after").read_text())
    assert (said["ok"], said["error"]["slug"]) == (False, "no-such-version")
    assert any("failed too" in line for line in failed.value.problems)


def test_a_command_that_does_not_end_is_ended(tmp_path: Path) -> None:
    repo = two_versions(tmp_path)
    with pytest.raises(HookFailed, match=r"not done after 0\.3 s"):
        repo.serve("half@2", hooks=Hooks(before=("sleep 60",), timeout=0.3))
