"""Servers that do not see the files of the repository: mounted elsewhere, or a copy."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import ServerTimeout, SwitchFailed
from servingrepo.repository.config import pins, read_config
from tests.support import command, live_server, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.errors import ServingRepoError

pytestmark = pytest.mark.tf


def explained(error: ServingRepoError, *, there: Path, here: Path) -> bool:
    """Tell whether an error names the likely cause with both paths, and advises nothing that cannot work."""
    said = "\n".join([error.message, *error.problems])
    hint = error.hint or ""
    return (
        f"does not see {there}" in said
        and str(here) in said
        and f"mount {here.parent}" in hint
        and "servingrepo reload" not in hint
    )


def test_a_new_model_that_the_server_does_not_see_is_explained_in_time(tmp_path: Path) -> None:
    """Its reload hangs for ever, and so does the one that would put it back: nobody waits for that."""
    elsewhere = tmp_path / "elsewhere"
    repo, _ = servingrepo.init(tmp_path / "serving", server_root=str(elsewhere))
    run = run_with(tmp_path / "a", offset=2.0)
    here = repo.value.layout.model("half")
    with live_server(repo, log=tmp_path / "log") as endpoint:
        begun = time.monotonic()
        with pytest.raises(SwitchFailed) as failed:
            repo.promote(run, model="half", smoke=False, endpoints=[endpoint], wait=3)
        assert time.monotonic() - begun < 25, "not the half minute of going back"
        assert explained(failed.value, there=elsewhere / "half", here=here), failed.value.problems
        assert pins(read_config(repo.value).config, "half") == ()
        repo.serve("half@1")
        told = command(
            *("--root", repo.root, "reload", "--endpoint", str(endpoint), "--wait", "2", "--json")
        )
        assert told.code == ServerTimeout.exit_code
        assert str(here) in told.out


def test_a_version_that_the_server_does_not_see_is_explained(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    repo, _ = servingrepo.init(tmp_path / "serving", server_root=str(copy))
    repo.promote(run_with(tmp_path / "a", offset=2.0), model="half", smoke=False)
    here = repo.value.layout.model("half")
    shutil.copytree(here / "1", copy / "half" / "1")
    repo.promote(run_with(tmp_path / "b", offset=3.0), model="half", smoke=False, serve=False)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        with pytest.raises(SwitchFailed, match="back where it was: half serves 1") as failed:
            repo.serve("half@2", endpoints=[endpoint], wait=4)
        assert explained(failed.value, there=copy / "half", here=here), failed.value.problems
        assert repo.status(endpoints=[endpoint]).ok
        repo.serve("half@2")
        (drift,) = repo.status(endpoints=[endpoint]).models[0].drift[:1]
        assert "does not see these files" in drift.message


def test_a_server_for_smoke_tests_that_does_not_see_the_files_is_told_both_paths(
    tmp_path: Path,
) -> None:
    repo, _ = servingrepo.init(tmp_path / "serving", server_root=str(tmp_path / "elsewhere"))
    with live_server(repo, log=tmp_path / "log") as endpoint:
        with pytest.raises(ServerTimeout) as failed:
            repo.promote(
                run_with(tmp_path / "a", offset=2.0),
                model="half",
                engine=f"remote:{endpoint}",
                timeout=2,
            )
        assert str(tmp_path / "elsewhere" / "half") in failed.value.message
        assert str(repo.value.layout.model("half")) in failed.value.message
