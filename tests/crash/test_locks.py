"""Every writing command while somebody else holds the lock: it says who, and changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import Locked
from servingrepo.repository import journal
from servingrepo.storage.lock import hold_lock, this_process
from tests.crash.filesystem import read_back
from tests.crash.scenarios import SCENARIOS, Scenario, filled, prepare
from tests.crash.state import broken_promises

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.filesystem import Tree
    from tests.crash.forking import Forking


def named(scenario: Scenario) -> str:
    return scenario.name


def untouched(root: Path) -> Tree:
    """Return the tree without the locks themselves."""
    tree = read_back(root)
    tree.pop(".servingrepo/lock")
    tree.pop(".servingrepo/smoke-lock", None)
    return tree


TAKE_NO_LOCK = {"verify --max-seconds": "it notes for itself alone how far it came"}


@pytest.mark.parametrize(
    "scenario", [one for one in SCENARIOS if one.name not in TAKE_NO_LOCK], ids=named
)
def test_a_writing_command_does_nothing_while_another_holds_the_lock(
    scenario: Scenario, memory: Path, runs: Path, forking: Forking
) -> None:
    root = prepare(memory / "repo", scenario.start, runs=runs, forking=forking)
    for folder in ("models", ".servingrepo/journal", ".servingrepo/models"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    with hold_lock(root / ".servingrepo" / "lock", this_process("a test"), wait=0, what="it"):
        before = untouched(root)
        arguments = filled(scenario.arguments, runs)
        code, said = forking.run("--root", str(root), "--lock-wait", "0", *arguments)
        assert code == Locked.exit_code, said
        assert "a test" in said
        assert untouched(root) == before


def test_a_promotion_of_content_that_is_there_serves_nothing_while_another_holds_the_lock(
    memory: Path, runs: Path, forking: Forking
) -> None:
    root = prepare(memory / "repo", "two", runs=runs, forking=forking)
    promote = ("promote", str(runs / "first"), "--model", "m", "--no-smoke", "--serve")
    with hold_lock(root / ".servingrepo" / "lock", this_process("a test"), wait=0, what="it"):
        before = untouched(root)
        code, said = forking.run("--root", str(root), "--lock-wait", "0", *promote)
        assert code == Locked.exit_code, said
        assert untouched(root) == before
    assert forking.run("--root", str(root), *promote)[0] == 0
    assert untouched(root) != before


def test_a_reload_waits_for_whoever_holds_the_lock(memory: Path, runs: Path) -> None:
    root = prepared(memory, runs)
    repo = servingrepo.open(root, lock_wait=0)
    with (
        hold_lock(repo.value.layout.lock, this_process("a test"), wait=0, what="it"),
        pytest.raises(Locked),
    ):
        repo.reload(endpoints=["127.0.0.1:1"])


@pytest.mark.parametrize("plan", ["proven=sleep:2", "copy.before-directories=sleep:2,staged=EIO"])
def test_a_promotion_that_was_overtaken_by_a_holder_of_the_lock_leaves_its_work_to_the_next_writer(
    plan: str, memory: Path, runs: Path
) -> None:
    """It neither publishes nor cleans up beside whoever holds the lock."""
    root = prepared(memory, runs)
    repo = servingrepo.open(root)
    layout = repo.value.layout
    history = layout.history.read_bytes()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "servingrepo", "--root", root, "--lock-wait", "0.1"),
            *("promote", runs / "new", "--model", "m", "--no-smoke"),
        ],
        env={**os.environ, "SERVINGREPO_FAILPOINTS": plan},
        stderr=subprocess.DEVNULL,
    )
    for _ in patience():
        if list(layout.model("m").glob(".staging/*")):
            break
    with hold_lock(layout.lock, this_process("a test"), wait=20, what="it"):
        assert process.wait(timeout=30) in {Locked.exit_code, 50}
        assert not layout.version("m", 2).exists()
        assert [alive for _, alive in journal.read_all(layout.journal)] == [False]
        assert list(layout.model("m").glob(".staging/*"))
    assert repo.recover()
    assert broken_promises(root, history_before=history) == []


def prepared(memory: Path, runs: Path) -> Path:
    repo, _ = servingrepo.init(memory / "repo")
    repo.promote(runs / "first", model="m", smoke=False)
    return repo.root


def patience() -> Iterator[None]:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        yield
        time.sleep(0.01)
    pytest.fail("it took too long")
