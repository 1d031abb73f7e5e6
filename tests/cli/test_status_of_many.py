"""`status` of many models: the models that differ and a count, all of them with --all and in JSON."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.modelconfig import pin
from servingrepo.repository.config import read_own_config, write_config
from servingrepo.repository.records import ModelState, encode
from servingrepo.repository.repository import need_version
from servingrepo.servers.engines.processes import free_port
from tests.cli import inside
from tests.fleet.test_fleet import at, fakes
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.support import Outcome


def name(number: int) -> str:
    return f"model-{number:03d}"


def many_models(tmp_path: Path, count: int) -> OpenRepository:
    """Publish and serve version 1 of so many models: one promotion, whose files and record the others repeat."""
    opened = new_repository(tmp_path / "serving")
    repo = opened.value
    opened.promote(run_with(tmp_path / "run", offset=1.0), model=name(0), smoke=False)
    sample, config = need_version(repo, name(0), 1), read_own_config(repo)
    for model in map(name, range(1, count)):
        shutil.copytree(repo.layout.model(name(0)), repo.layout.model(model))
        repo.layout.records(model).mkdir()
        record = msgspec.structs.replace(sample, model=model)
        repo.layout.record(model, 1).write_bytes(encode(record))
        repo.layout.state(model).write_bytes(encode(ModelState(name=model, highest=1)))
        config = pin(config, name=model, base_path=repo.base_path(model), versions=[1])
    write_config(repo, config)
    return opened


def status(repo: OpenRepository, *options: str) -> Outcome:
    return inside.command("--root", repo.root, "status", *options)


def rows(done: Outcome) -> list[str]:
    """Return the models that have a row of the table."""
    return re.findall(r"^(model-\d+) ", done.out, flags=re.MULTILINE)


def lose(repo: OpenRepository, *numbers: int) -> None:
    """Remove the served version of models, so that they differ."""
    for number in numbers:
        shutil.rmtree(repo.value.layout.version(name(number), 1))


def test_twenty_models_have_a_row_each(tmp_path: Path) -> None:
    repo = many_models(tmp_path, 20)
    shown = status(repo)
    assert (shown.code, rows(shown)) == (0, [*map(name, range(20))])
    assert "--all" not in shown.out
    lose(repo, 7)
    shown = status(repo)
    assert (shown.code, rows(shown)) == (68, [*map(name, range(20))])


@pytest.mark.parametrize("count", [21, 300])
def test_of_more_models_those_that_differ(tmp_path: Path, count: int) -> None:
    repo = many_models(tmp_path, count)
    shown = status(repo)
    assert (shown.code, rows(shown)) == (0, [])
    assert shown.out.splitlines()[0] == f"{count} models agree on disk (--all lists them)"
    lose(repo, 3, 20)
    shown = status(repo)
    assert (shown.code, rows(shown)) == (68, [name(3), name(20)])
    counted = (
        f"{count} models: 2 with differences, {count - 2} in agreement on disk (--all lists them)"
    )
    assert counted in shown.out.splitlines()
    assert f"{name(20)}@1 is pinned but missing on disk" in shown.err


def test_all_lists_every_model(tmp_path: Path) -> None:
    repo = many_models(tmp_path, 21)
    shown = status(repo, "--all")
    assert rows(shown) == [*map(name, range(21))]
    assert "models agree" not in shown.out
    asked = command("--root", repo.root, "status", env={"SERVINGREPO_STATUS_ALL": "1"})
    assert rows(asked) == rows(shown)
    (repo.root / "servingrepo.toml").write_text("[status]\nall = true\n")
    asked = command("--root", repo.root, "status")
    assert rows(asked) == rows(shown)


def test_json_has_every_model(tmp_path: Path) -> None:
    repo = many_models(tmp_path, 300)
    assert len(status(repo, "--json").json["result"]["models"]) == 300
    lose(repo, 3)
    found = status(repo, "--json").json["error"]["details"]["status"]["models"]
    assert len(found) == 300
    assert [one["model"] for one in found if one["drift"]] == [name(3)]
    watched = status(repo, "--json", "--watch", "--wait", "0.1")
    assert len(watched.json["result"]["models"]) == 300


def test_a_watched_status_counts_too(tmp_path: Path) -> None:
    repo = many_models(tmp_path, 21)
    lose(repo, 3)
    watched = status(repo, "--watch", "--wait", "0.1")
    assert (watched.code, rows(watched)) == (68, [name(3)])
    assert "21 models: 1 with differences, 20 in agreement on disk" in watched.out
    watched = status(repo, "--watch", "--wait", "0.1", "--all")
    assert rows(watched) == [*map(name, range(21))]


def test_a_named_model_has_its_row(tmp_path: Path) -> None:
    shown = status(many_models(tmp_path, 21), name(3))
    assert rows(shown) == [name(3)]
    assert "models agree" not in shown.out


def test_servers_that_agree_are_no_row(tmp_path: Path, fleet: ExitStack) -> None:
    repo = many_models(tmp_path, 21)
    (endpoint,) = at(fakes(fleet, 1))
    repo.reload(endpoints=[endpoint], wait=30)
    shown = status(repo, "--endpoint", str(endpoint))
    assert shown.out.splitlines()[0] == "21 models agree (--all lists them)"


def test_a_dead_server_is_no_difference_of_each_model(tmp_path: Path) -> None:
    """A server that does not answer is said once; what was not compared with it does not agree either."""
    repo = many_models(tmp_path, 21)
    lose(repo, 3)
    down = f"127.0.0.1:{free_port()}"
    shown = status(repo, "--endpoint", down)
    assert (shown.code, rows(shown)) == (68, [name(3)])
    assert "21 models: 1 with differences, 20 not compared with every server" in shown.out
    assert "agree" not in shown.out
    assert shown.err.count(f"answers at {down}") == 1


def test_a_model_that_config_check_names_differs(tmp_path: Path) -> None:
    """The base path of an unmanaged model is missing, which no comparison of versions finds."""
    repo = many_models(tmp_path, 20)
    config = repo.value.layout.config
    text = config.read_text()
    entry = 'config { name: "other" base_path: "models/other" model_platform: "tensorflow" }'
    config.write_text(text.replace("model_config_list {", "model_config_list { " + entry, 1))
    inside.command("--root", repo.root, "config", "write", "--take-edit")
    found = repo.status()
    wrong = [one.model for one in found.models if one.differs]
    assert wrong == ["other"]
    (row,) = (one for one in found.models if one.problems)
    assert set(row.problems) <= set(found.problems)


def test_nothing_is_left_out_of_what_was_not_compared(tmp_path: Path) -> None:
    repo = many_models(tmp_path, 21)
    repo.value.layout.config.write_text("model_config_list {")
    shown = status(repo)
    assert (shown.code, rows(shown)) == (36, [*map(name, range(21))])
    assert "agree" not in shown.out
