"""Two smoke tests on one running server: one after the other, and the second says for whom it waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import Locked
from servingrepo.repository.proving import smoking
from servingrepo.servers.engines.processes import free_port
from servingrepo.servers.engines.remote import RemoteEngine
from servingrepo.servers.states import Endpoint
from servingrepo.storage.lock import hold_lock, this_process
from tests.support import command, ending, live_server, new_repository, run_with
from tests.verbs.test_smoke_leftovers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.api import OpenRepository


@contextmanager
def taken(repo: OpenRepository) -> Iterator[None]:
    """Hold the lock on servers for smoke tests, as a smoke test does."""
    lock = repo.value.layout.smoke_lock
    with hold_lock(lock, this_process("a test"), wait=0, what="it"):
        yield


def test_a_promotion_is_refused_while_another_smoke_tests(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    nobody = f"remote:127.0.0.1:{free_port()}"
    run = run_with(tmp_path / "a", offset=1.0)
    promote = ("--lock-wait", "0.5", "promote", run, "--model", "half", "--engine", nobody)
    with taken(repo):
        done = command("--root", repo.root, *promote)
    assert done.code == Locked.exit_code, done.err
    first, second, third = done.err.splitlines()
    who = f"the server for smoke tests, {nobody.removeprefix('remote:')}, is locked by"
    assert first.startswith(who)
    assert first.endswith("waiting up to 0.5 s for it")
    assert second.startswith(f"error: {who}")
    assert f"pid {os.getpid()} (a test)" in second
    assert third.startswith("hint: wait for that command to end")
    assert repo.list() == ()
    assert not list(repo.value.layout.journal.iterdir())


def test_a_smoke_test_is_refused_while_another_runs(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=1.0), model="half", smoke=False)
    nobody = f"remote:127.0.0.1:{free_port()}"
    impatient = type(repo)(msgspec.structs.replace(repo.value, lock_wait=0.0))
    with taken(repo):
        with pytest.raises(Locked, match="server for smoke tests"):
            impatient.smoke("half@1", engine=nobody)
        with pytest.raises(Locked, match="server for smoke tests"):
            impatient.smoke(repo.value.layout.version("half", 1), engine=nobody)


def test_a_comparison_is_refused_while_another_runs(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    for number, offset in enumerate((1.0, 2.0), start=1):
        repo.promote(run_with(tmp_path / f"a{number}", offset=offset), model="half", smoke=False)
    case = tmp_path / "c.json"
    case.write_text('{"inputs": {"x": [1.0]}}')
    impatient = type(repo)(msgspec.structs.replace(repo.value, lock_wait=0.0))
    with taken(repo), pytest.raises(Locked, match="server for smoke tests"):
        impatient.diff("half@1", "half@2", cases=[case], engine=f"remote:127.0.0.1:{free_port()}")


def test_other_engines_take_no_turns(tmp_path: Path) -> None:
    repo = new_repository(tmp_path / "serving")
    with taken(repo):
        done = repo.promote(run_with(tmp_path / "a", offset=1.0), model="half", engine="embedded")
    assert done.proof is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_write_smoke_tests_without_a_lock() -> None:
    """They may do so without an intent, too: a reader cannot write one down."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        made = new_repository(Path(name, "serving"))
        made.promote(run_with(Path(name, "a"), offset=1.0), model="half", smoke=False)
        endpoint = Endpoint("127.0.0.1", free_port())
        engine = RemoteEngine(endpoint=endpoint, models=None, server_root="/models")
        os.seteuid(65534)
        try:
            with smoking(made.value, "half", 1, engine) as txid:
                assert txid == ""
        finally:
            os.seteuid(0)
        assert not made.value.layout.smoke_lock.exists()


@pytest.mark.tf
@pytest.mark.parametrize("end", ["done", "killed"])
def test_a_second_promotion_waits_for_its_turn(tmp_path: Path, conformance: Path, end: str) -> None:
    """Without a lock its reload would take the first one's model away, or it would be refused for a dead one's."""
    repo = new_repository(tmp_path / "serving")
    older = run_with(tmp_path / "a", offset=1.0)
    repo.promote(older, model="half", smoke=False, serve=False)
    case = tmp_path / "case.json"
    case.write_text('{"inputs": {"seconds": 3.0}}')
    slow = conformance / "corpus" / "slow"
    with live_server(repo, log=tmp_path / "log") as endpoint:
        engine = ("--engine", f"remote:{endpoint}", "--lock-wait", "60", "-q")
        promote = (sys.executable, "-m", "servingrepo", "--root", str(repo.root), "promote")
        first = subprocess.Popen([*promote, slow, "--model", "half", *engine, "--case", case])
        with ending(first):
            wait_for(endpoint, 2, "AVAILABLE")
            first.send_signal(signal.SIGSTOP)
            run = run_with(tmp_path / "b", offset=2.0)
            second = subprocess.Popen(
                [*promote, run, "--model", "other", *engine[:-1]],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            with ending(second):
                assert second.stderr is not None
                told = second.stderr.readline()
                assert f"pid {first.pid} " in told
                assert "waiting" in told
                first.send_signal(signal.SIGKILL if end == "killed" else signal.SIGCONT)
                out, err = second.communicate(timeout=60)
                assert second.returncode == 0, err
                assert "other@1 published" in out
            assert first.wait(60) == (0 if end == "done" else -signal.SIGKILL)
    served = {one.model: one.served for one in repo.list()}
    assert served == {"half": 2 if end == "done" else None, "other": 1}
