"""Entries that were taken over from hand with a policy that lets the disk decide what is served."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import SwitchFailed
from servingrepo.modelconfig import entry
from servingrepo.repository.config import read_config
from tests.fleet.test_switch import loaded
from tests.support import ask, command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository


def taken_over(folder: Path, policy: str, *, versions: int = 3) -> OpenRepository:
    """Publish versions that answer their number, and take an entry with such a policy over from hand."""
    repo = new_repository(folder / "serving")
    for number in range(1, versions + 1):
        run = run_with(folder / f"r{number}", offset=float(number))
        repo.promote(run, model="half", smoke=False, serve=False)
    chosen = f"model_version_policy {{ {policy} }}" if policy else ""
    repo.value.layout.config.write_text(
        f'model_config_list {{ config {{ name: "half" base_path: "{repo.value.base_path("half")}" '
        f'model_platform: "tensorflow" {chosen} }} }}\n'
    )
    done = command("--root", repo.root, "config", "write", "--take-edit")
    assert done.code == 0, done.err
    return repo


def pinned(repo: OpenRepository) -> tuple[str, tuple[int, ...]]:
    found = entry(read_config(repo.value).config, "half")
    assert found is not None
    return found.policy, found.versions


@pytest.mark.parametrize(
    ("policy", "serves"),
    [
        ("", (3,)),
        ("latest {}", (3,)),
        ("latest { num_versions: 2 }", (2, 3)),
        ("all {}", (1, 2, 3)),
    ],
)
def test_rollback_under_a_policy_pins_the_version_before_the_one_that_it_serves(
    tmp_path: Path, policy: str, serves: tuple[int, ...]
) -> None:
    repo = taken_over(tmp_path, policy)
    (row,) = repo.status().models
    assert (row.served, row.pinned) == (3, serves)
    assert repo.list()[0].served == 3
    assert list(repo.history("half"))[-1].after == serves
    done = repo.rollback("half")
    assert (done.before, done.served_before, done.after) == (serves, 3, (2,))
    assert done.marked_bad == 3
    assert pinned(repo) == ("specific", (2,))
    assert list(repo.history("half"))[-1].before == serves


def test_rollback_from_a_version_that_somebody_copied_goes_to_the_next_lower_one(
    tmp_path: Path,
) -> None:
    repo = taken_over(tmp_path, "latest {}")
    models = repo.value.layout.model("half")
    shutil.copytree(models / "3", models / "7")
    assert repo.status().models[0].served == 7
    assert "7 (latest)" in command("--root", repo.root, "status").out
    done = repo.rollback("half", mark_bad=False)
    assert (done.before, done.after) == ((7,), (3,))


def test_serving_what_a_policy_serves_already_pins_it(tmp_path: Path) -> None:
    repo = taken_over(tmp_path, "latest {}")
    done = repo.serve("half@3")
    assert done.changed
    assert pinned(repo) == ("specific", (3,))
    assert not repo.serve("half@3").changed


@pytest.mark.tf
def test_a_server_under_a_policy_is_rolled_back_or_put_back_and_status_sees_what_it_serves(
    tmp_path: Path,
) -> None:
    repo = taken_over(tmp_path, "latest { num_versions: 2 }")
    text = repo.value.layout.config.read_text()
    with live_server(repo, log=tmp_path / "log") as endpoint:
        assert repo.status(endpoints=[endpoint], wait=10).ok
        refused = command(
            *("--root", repo.root, "rollback", "half", "--to", "1", "--first", str(endpoint)),
            *("--gate", "exit 1", "--endpoint", str(endpoint)),
        )
        assert refused.code == SwitchFailed.exit_code, refused.err
        assert "back where it was: half serves 2, 3" in refused.err
        assert repo.value.layout.config.read_text() == text
        assert (ask(endpoint), loaded(endpoint)) == ((3, 3.0), {2, 3})
        models = repo.value.layout.model("half")
        shutil.copytree(models / "3", models / "9")
        graph = models / "9" / "saved_model.pb"
        graph.write_bytes(graph.read_bytes()[:50])
        status = repo.status(endpoints=[endpoint])
        while status.models[0].drift and status.models[0].drift[0].reason in {
            "loading",
            "not-loaded",
        }:
            status = repo.status(endpoints=[endpoint])
        reasons = {(one.reason, one.version) for one in status.models[0].drift}
        assert ("failed", 9) in reasons
        assert status.next == f"servingrepo rollback half --endpoint {endpoint}"
        repo.rollback("half", endpoints=[endpoint], wait=30, mark_bad=False)
        assert (ask(endpoint), loaded(endpoint)) == ((3, 3.0), {3})
        assert repo.status(endpoints=[endpoint], wait=5).ok
