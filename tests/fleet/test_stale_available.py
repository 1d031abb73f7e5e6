"""A version that is gone and that the server goes on calling AVAILABLE, as TensorFlow Serving sometimes does."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import RequestRefused, SwitchFailed
from servingrepo.repository.retention import Keep
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.choice import EngineChoice, choose_engine
from tests.fleet.trouble import busy
from tests.support import live_server, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint

pytestmark = pytest.mark.tf

FLAGS = ("--num_load_threads=1", "--play_stale_available=true")


def slow_and_quick(tmp_path: Path, conformance: Path) -> OpenRepository:
    """Publish a version that answers as late as it is asked to, served, and another one."""
    repo = new_repository(tmp_path / "serving")
    repo.promote(conformance / "corpus" / "slow", model="half", smoke=False)
    other = run_with(tmp_path / "b", offset=3.0)
    repo.promote(other, model="half", smoke=False, serve=False, allow_breaking=True)
    return repo


@contextmanager
def with_a_stale_version(repo: OpenRepository, log: Path) -> Iterator[Endpoint]:
    """Serve version 1, with version 2 taken back while it was LOADING behind a long request."""
    with live_server(repo, *FLAGS, log=log) as endpoint:
        with busy(endpoint, seconds=6) as answered:
            begun = time.monotonic()
            with pytest.raises(SwitchFailed, match="back where it was: half serves 1"):
                repo.serve("half@2", endpoints=[endpoint], wait=1)
            assert time.monotonic() - begun < 25, "going back waits for nothing that is gone"
        assert answered == [1]
        with ServingClient(endpoint) as client:
            deadline = Deadline.after(20)
            while states(client) != {1: "AVAILABLE", 2: "AVAILABLE"}:
                assert not deadline.passed, states(client)
                deadline.pause(0.05)
            with pytest.raises(RequestRefused, match="not found"):
                client.metadata("half", 2, timeout=5)
            assert client.metadata("half", timeout=5).version == 1
        yield endpoint


def states(client: ServingClient) -> dict[int, str]:
    return {one.version: one.state for one in client.status("half", timeout=5)}


def test_a_version_that_is_gone_and_called_available_keeps_nobody_from_changes(
    tmp_path: Path, conformance: Path
) -> None:
    repo = slow_and_quick(tmp_path, conformance)
    with with_a_stale_version(repo, tmp_path / "log") as endpoint:
        status = repo.status(endpoints=[endpoint])
        (seen,) = status.models[0].endpoints
        assert (seen.available, seen.stale, status.ok) == ((1,), (2,), True)
        begun = time.monotonic()
        repo.reload(endpoints=[endpoint], wait=60)
        assert time.monotonic() - begun < 20
        gone = repo.prune("half", keep=Keep(last=1), endpoints=[endpoint], dry_run=True)
        reasons = {one.version: one.reasons for one in gone.models[0].decisions}
        assert not any("AVAILABLE" in reason for reason in reasons[2])
        done = repo.serve("half@2", endpoints=[endpoint], wait=30)
        assert done.after == (2,)
        with ServingClient(endpoint) as client:
            assert client.metadata("half", timeout=5).version == 2
        assert repo.status(endpoints=[endpoint]).ok


def test_available_alone_is_no_proof_that_a_pinned_version_is_loaded(
    tmp_path: Path, conformance: Path
) -> None:
    """The pins come by the file, so that no reload loads the version: the server only says that it is there."""
    repo = slow_and_quick(tmp_path, conformance)
    with with_a_stale_version(repo, tmp_path / "log") as endpoint:
        repo.serve("half@2")
        status = repo.status("half", endpoints=[endpoint])
        assert ("not-loaded", 2) in {(one.reason, one.version) for one in status.models[0].drift}


def test_a_stale_version_keeps_no_smoke_test_from_a_remote_server(
    tmp_path: Path, conformance: Path
) -> None:
    repo = slow_and_quick(tmp_path, conformance)
    layout = repo.value.layout
    with with_a_stale_version(repo, tmp_path / "log") as endpoint:
        with ServingClient(endpoint) as client:
            repo.unserve("half", endpoints=[endpoint], wait=30)
            assert states(client)[2] == "AVAILABLE"
        engine = choose_engine(
            EngineChoice(name=f"remote:{endpoint}"),
            models=layout.models,
            server_root=repo.value.server_root,
            ours=("half",),
        )
        proof = repo.smoke("half@2", engine=engine, timeout=30)
        assert [one.outcome for one in proof.report.verdicts] == ["passed"]
