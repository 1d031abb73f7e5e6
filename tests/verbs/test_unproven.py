"""What is said of a version that live servers give to clients although nothing was proven of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import UnsupportedExport, UsageError
from servingrepo.fleet.rules import Rules
from servingrepo.servers.engines.server_versions import parse_server_version
from servingrepo.smoke.files import load_cases
from servingrepo.testing.exports import Served
from tests.savedmodel.graphs import export_with
from tests.support import command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository

CASE = '{"inputs": {"x": [2.0]}, "outputs": {"y": [3.0]}}'


def unproven(tmp_path: Path) -> OpenRepository:
    """Publish a version that is served and one that is not, neither of them smoke-tested."""
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=2.0), model="half", smoke=False)
    repo.promote(run_with(tmp_path / "b", offset=3.0), model="half", smoke=False, serve=False)
    return repo


@pytest.mark.tf
def test_a_live_switch_without_any_proof_says_so_loudly(tmp_path: Path) -> None:
    repo = unproven(tmp_path)
    case = tmp_path / "case.json"
    case.write_text(CASE)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        at = ("--root", repo.root, "--endpoint", str(endpoint))
        served = command("serve", "half@2", "-q", *at)
        assert served.code == 0
        assert "NOT PROVEN: half@2" in served.err, "with -q too"
        back = command("rollback", "half", *at, "--json")
        assert back.code == 0, "said, and no reason to stop"
        assert "NOT PROVEN: half@1" in back.json["result"]["unproven"][0]
        promoted = command(
            *("promote", run_with(tmp_path / "c", offset=4.0), "--model", "half", "--no-smoke"), *at
        )
        assert promoted.code == 0, promoted.err
        assert "NOT PROVEN: half@3" in promoted.err
        assert f"{endpoint}  half@3 answers GetModelMetadata" in promoted.out
        probed = repo.serve("half@1", endpoints=[endpoint], rules=Rules(probes=load_cases(case)))
        assert probed.unproven == ()
        assert probed.endpoints[0].outcome == "half@1 answers 1 probe case"
    assert repo.serve("half@1").unproven == (), "no server was told"


@pytest.mark.tf
def test_signatures_that_no_request_proved_are_named(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    two = (Served(), Served(key="second"))
    run = run_with(tmp_path / "a", offset=2.0, signatures=two)
    case = tmp_path / "case.json"
    case.write_text(CASE)
    repo.promote(run, model="half", smoke=False, serve=False)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        rules = Rules(probes=load_cases(case))
        (said,) = repo.serve("half@1", endpoints=[endpoint], rules=rules).unproven
        assert "no request of second was ever answered by half@1" in said
        repo.unserve("half", endpoints=[endpoint])
        repo.promote(run, model="half", engine="embedded", serve=False)
        assert repo.serve("half@1", endpoints=[endpoint]).unproven == ()


def test_operations_are_held_against_the_endpoints_server_where_it_is_known(
    tmp_path: Path,
) -> None:
    repo = new_repository(tmp_path / "serving")
    run = export_with(tmp_path / "run", "MyOwnOp")
    known = Rules(server=parse_server_version("2.19.1"))
    lacks = r"2\.19 does not have the operations MyOwnOp"
    with pytest.raises(UnsupportedExport, match=lacks):
        repo.promote(run, model="m", smoke=False, rules=known)
    assert repo.models() == (), "before anything was copied"
    repo.promote(run, model="m", smoke=False, serve=False, rules=known)
    with pytest.raises(UnsupportedExport, match=lacks):
        repo.serve("m@1", rules=known)
    assert repo.show("m").served is None
    repo.serve("m@1")
    repo.promote(run_with(tmp_path / "b", offset=1.0), model="m", smoke=False, allow_breaking=True)
    (said,) = repo.rollback("m", rules=known).unproven
    assert "does not have the operations MyOwnOp" in said, "a rollback is warned, not stopped"


def test_the_version_of_an_environments_servers_stands_in_the_settings(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    run = export_with(tmp_path / "run", "MyOwnOp")
    (repo.root / "servingrepo.toml").write_text(
        '[environments.prod]\nendpoints = ["127.0.0.1:1"]\nserver_version = "2.19.1"\n'
    )
    promote = ("--root", repo.root, "promote", run, "--model", "m", "--no-smoke")
    done = command(*promote, "--env", "prod")
    assert done.code == UnsupportedExport.exit_code, done
    assert "MyOwnOp" in done.err
    assert command(*promote, "--server-version", "newest").code == 2


@pytest.mark.parametrize(
    ("text", "version"), [("2.19", (2, 19)), ("2.19.1", (2, 19)), ("v2.12.2-gpu", (2, 12))]
)
def test_a_servers_version_is_read_as_people_write_it(text: str, version: tuple[int, int]) -> None:
    assert parse_server_version(text) == version


@pytest.mark.parametrize("text", ["", "2", "latest", "2.x", "12"])
def test_what_is_no_servers_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_server_version(text)
