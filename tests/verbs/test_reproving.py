"""Versions that were published without a smoke test, and how they get their proof."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import Locked, SmokeFailed
from servingrepo.repository.proving import add_proof
from servingrepo.repository.records import Proof
from servingrepo.repository.version_lock import alone, used_versions, using
from servingrepo.smoke.report import SmokeReport
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository

PROOF = Proof(
    engine="embedded",
    server="a test",
    time="now",
    staged=False,
    report=SmokeReport(model="half", version=1, endpoint="here", signatures=(), verdicts=()),
)
WRONG_CASE = '{"inputs": {"x": [2.0]}, "outputs": {"y": [99.0]}}'


def unproven(tmp_path: Path) -> tuple[OpenRepository, Path]:
    repo = new_repository(tmp_path / "serving")
    run = run_with(tmp_path / "a", offset=2.0)
    repo.promote(run, model="half", smoke=False)
    assert repo.show_version("half@1").proofs == ()
    return repo, run


@pytest.mark.tf
def test_promoting_unproven_content_again_adds_the_proof_to_its_record(tmp_path: Path) -> None:
    repo, run = unproven(tmp_path)
    promote = ("promote", run, "--model", "half", "--smoke", "--engine", "embedded")
    assert "smoke test" in command("--root", repo.root, *promote, "--dry-run").out
    assert repo.show_version("half@1").proofs == ()
    done = command("--root", repo.root, *promote)
    assert done.code == 0, done.err
    assert "added to its record" in done.out
    (proof,) = repo.show_version("half@1").proofs
    assert (proof.engine, proof.staged, len(proof.report.passed)) == ("embedded", False, 1)
    last = list(repo.history("half"))[-1]
    assert (last.action, last.version, last.proof) == ("prove", 1, str(proof))
    assert repo.verify("half@1")[0].ok
    again = repo.promote(run, model="half", engine="embedded")
    assert (again.version, again.proof) == (1, None), "proven once is enough"
    assert len(repo.show_version("half@1").proofs) == 1
    assert repo.status().ok


@pytest.mark.tf
def test_content_that_fails_its_late_smoke_test_stays_as_it_is(tmp_path: Path) -> None:
    repo, run = unproven(tmp_path)
    case = tmp_path / "case.json"
    case.write_text(WRONG_CASE)
    with pytest.raises(SmokeFailed) as failed:
        repo.promote(run, model="half", engine="embedded", cases=[case])
    assert any("half@1 is published already" in one for one in failed.value.problems)
    assert repo.show_version("half@1").proofs == ()
    assert [event.action for event in repo.history("half")] == ["promote"]


def test_no_smoke_and_what_is_typed_for_a_smoke_test_contradict_each_other(tmp_path: Path) -> None:
    repo, run = unproven(tmp_path)
    promote = ("--root", repo.root, "promote", run, "--model", "half")
    for options in (("--engine", "embedded"), ("--strict",), ("--timeout", "5"), ("--pull",)):
        done = command(*promote, "--no-smoke", *options)
        assert done.code == 2, done
        assert options[0] in done.err
        assert "--no-smoke" in done.err
    off = {"SERVINGREPO_PROMOTE_SMOKE": "0"}
    assert command(*promote, "--strict", env=off).code == 2
    assert command(*promote, "--strict", "--smoke", "--dry-run", env=off).code == 0
    general = {"SERVINGREPO_ENGINE": "embedded", "SERVINGREPO_PROMOTE_STRICT": "1"}
    assert command(*promote, "--no-smoke", env=general).code == 0, "what holds in general goes on"


def test_a_proof_is_not_added_while_somebody_reads_the_version(tmp_path: Path) -> None:
    """The lock of who reads a version is on its record, and adding a proof replaces that file."""
    repo, _ = unproven(tmp_path)
    with pytest.raises(Locked), using(repo.value, "half", 1):
        add_proof(repo.value, "half", 1, PROOF, why="")
    assert repo.show_version("half@1").proofs == ()
    assert list(repo.value.layout.journal.iterdir()) == []
    assert [event.action for event in repo.history("half")] == ["promote"]


def test_who_waits_for_a_record_that_is_replaced_locks_the_new_one(tmp_path: Path) -> None:
    repo, _ = unproven(tmp_path)
    path = repo.value.layout.record("half", 1)
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        with using(repo.value, "half", 1):
            reading.set()
            done.wait(20)

    reader = threading.Thread(target=read, daemon=True)
    with alone(repo.value, "half", 1) as free:
        assert free
        reader.start()
        deadline = Deadline.after(20)
        while not waits_for_a_lock(reader):
            assert not deadline.passed
            deadline.pause(0.01)
        repo.value.disk.replace_file(path, path.read_bytes() + b"\n", step="record")
    assert reading.wait(20)
    assert used_versions(repo.value, "half", [1]) == {1}
    done.set()
    reader.join(20)
    assert not used_versions(repo.value, "half", [1])


def waits_for_a_lock(thread: threading.Thread) -> bool:
    """Tell whether a reader has opened the record and sleeps between two tries."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "using"
