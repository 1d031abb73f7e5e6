"""One smoke test on several servers: a row for each, with the server's reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import SmokeFailed
from servingrepo.servers.engines.options import EngineChoice
from servingrepo.verbs.smoke import engine_named
from tests.support import command, new_repository, run_with, write_binary

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return write_binary(tmp_path)


@pytest.mark.tf
def test_each_server_has_a_row(tmp_path: Path, binary: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=1.0), model="half", smoke=False)
    smoke = ("--root", repo.root, "smoke", "half@1", "--engine", "embedded")
    done = command(*smoke, "--also", f"binary:{binary}", "--json")
    assert done.code == 0, done.err
    first, second = done.json["result"]["rows"]
    assert (first["server"], first["proof"]["engine"]) == ("embedded", "embedded")
    assert second["server"] == f"binary:{binary}"
    assert second["proof"]["server"].startswith("TensorFlow ModelServer")
    shown = command(*smoke, "--also", f"binary:{binary}")
    assert shown.out.splitlines()[0] == "half@1 on 2 servers"
    assert shown.out.count("passed, 1 passed") == 2


@pytest.mark.tf
def test_a_server_that_cannot_serve_it_says_why_and_the_next_is_tried(
    tmp_path: Path, binary: Path
) -> None:
    run = run_with(tmp_path / "a", offset=1.0)
    missing = f"binary:{tmp_path / 'nothing'}"
    done = command(
        *("smoke", f"{run}/", "--engine", missing),
        *("--also", "embedded", "--also", f"binary:{binary}"),
    )
    assert done.code == SmokeFailed.exit_code
    rows = done.out.splitlines()[1:]
    assert rows[0].startswith(f"  {missing}: engine-unavailable: there is no ")
    assert [("passed, 1 passed" in row) for row in rows] == [False, True, True]
    assert "1 of 3 servers do not prove" in done.err


def test_what_is_no_engine_is_an_image() -> None:
    like = EngineChoice(name="embedded", memory="2g")
    image = engine_named("tensorflow/serving:2.16.1", like)
    assert (image.name, image.image, image.memory) == ("docker", "tensorflow/serving:2.16.1", "2g")
    for name in ("embedded", "binary", "binary:/usr/bin/x", "remote:host:1"):
        assert engine_named(name, like).name == name


@pytest.mark.parametrize("option", ["--write-cases", "--report"])
def test_files_are_about_one_server(option: str, tmp_path: Path) -> None:
    run = run_with(tmp_path / "a", offset=1.0)
    done = command("smoke", f"{run}/", "--also", "embedded", option, tmp_path / "x.json")
    assert done.code == 2
    assert "one server" in done.err
