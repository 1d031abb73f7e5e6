"""A version whose bytes were damaged after it was published, and a live server that tries to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.servers.states import VersionStatus, hint_for_failed
from tests.support import command, live_server, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository


def with_flipped_bytes(tmp_path: Path) -> OpenRepository:
    """Publish two versions, the second one with its sizes right and its weights wrong."""
    repo = new_repository(tmp_path / "serving")
    for number in (1.0, 2.0):
        run = run_with(tmp_path / f"r{number}", offset=number, variables=True)
        repo.promote(run, model="half", smoke=False, serve=number == 1.0)
    shard = next(repo.value.layout.version("half", 2).glob("variables/*.data-*"))
    shard.write_bytes(bytes(byte ^ 0xFF for byte in shard.read_bytes()))
    return repo


@pytest.mark.tf
def test_a_checksum_that_differs_on_a_live_server_is_damage(tmp_path: Path) -> None:
    repo = with_flipped_bytes(tmp_path)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        at = ("--root", repo.root, "--endpoint", str(endpoint))
        failed = command("serve", "half@2", *at)
        assert failed.code == 67
        assert "servingrepo verify half@2" in failed.err
        assert "restart" not in failed.err
        assert "\\n" not in failed.err, "the server's words are one line"
        status = command("status", *at)
        assert status.code == 0, status.err
        (why,) = [line for line in status.out.splitlines() if line.startswith("failed: ")]
        assert f"{endpoint}: half@2: " in why
        assert "Checksum" in why
        assert "next: servingrepo verify half@2" in status.out
        assert "\\n" not in status.out
        verified = command("--root", repo.root, "verify", "half@2")
        assert verified.code == 35, "the advice leads somewhere"


@pytest.mark.parametrize(
    ("code", "error", "damaged"),
    [
        (15, "TensorBundle at variables shard 0: Checksum does not match", True),
        (11, "Read less bytes than requested", True),
        (5, "/models/m/2/variables/variables.data-00000-of-00001; No such file or directory", True),
        (5, "Op type not registered 'MyOwnOp' in binary running", False),
        (8, "out of memory", False),
    ],
)
def test_what_a_restart_cannot_mend_is_not_advised_one(
    code: int, error: str, *, damaged: bool
) -> None:
    status = VersionStatus(version=2, state="END", code=code, error=error)
    hint = hint_for_failed("m", status)
    assert ("servingrepo verify m@2" in hint, "restart" in hint) == (damaged, not damaged)
