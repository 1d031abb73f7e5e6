"""What every writing command did to the disk, and every state that a power loss may leave of it.

In the default lane a few commands that between them do all there is; `-m crash` tries all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.crash.counting import count
from tests.crash.filesystem import Recording, states_after
from tests.crash.power import lose_power, play, play_killed
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.tracing import Effect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.forking import Forking

FEW = {"init", "promote, new model", "rollback", "config write --server-root"}
"""Commands that between them write everything there is."""

KILLED_FEW = {"promote, new model": 7, "rollback": 5}
"""Commands that the default lane also kills before the power goes, at every so manyth step."""


def mark_all_but(few: set[str]) -> list[object]:
    """Return the scenarios as parameters; all but a few are left to `-m crash`."""
    return [
        pytest.param(one, id=one.name, marks=() if one.name in few else pytest.mark.crash)
        for one in SCENARIOS
    ]


@pytest.fixture(scope="session")
def strace() -> None:
    """Skip where no process can be traced."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed (tests/crash/prepare installs it)")
    tried = subprocess.run(
        [program, "-f", "--seccomp-bpf", "-o", os.devnull, "true"],
        capture_output=True,
        check=False,
    )
    if tried.returncode != 0:
        pytest.skip(f"no process can be traced here: {tried.stderr.decode().strip()}")


@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", mark_all_but(FEW))
def test_a_power_loss_at_any_point_leaves_the_state_before_or_after(
    scenario: Scenario,
    memory: Path,
    runs: Path,
    forking: Forking,
    request: pytest.FixtureRequest,
) -> None:
    played = play(scenario, memory / "played", runs=runs)
    found = lose_power(played, memory / "work", forking=forking)
    count(request, "power loss", {"prefixes": found.points, "states": found.states})
    assert found.states > found.points > 5
    assert not found.wrong, "\n".join(found.wrong)


@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", mark_all_but(set(KILLED_FEW)))
def test_a_power_loss_after_a_kill_and_a_recovery_takes_nothing_back(
    scenario: Scenario, memory: Path, runs: Path, request: pytest.FixtureRequest
) -> None:
    """Recovery sees what the dead command wrote and did not sync: it must not build on sand."""
    stride = 1
    if "crash" not in request.config.getoption("markexpr"):
        stride = KILLED_FEW[scenario.name]
    kills = states = 0
    wrong: list[str] = []
    for killed in play_killed(scenario, memory / "played", runs=runs, stride=stride):
        found = lose_power(killed.played, memory / "work", only_at_end=True)
        kills += 1
        states += found.states
        wrong += [f"killed at {killed.step}: {one}" for one in found.wrong]
    count(request, "power loss after a kill", {"kills": kills, "states": states})
    assert states > kills > 1
    assert not wrong, "\n".join(wrong)


# the file system that knows what is durable --------------------------------------------------------


def recorded(tmp_path: Path, *effects: Effect) -> Recording:
    start = tmp_path / "start"
    start.mkdir(mode=0o755)
    (start / "old").write_bytes(b"old")
    return Recording(start, effects)


def left(recording: Recording) -> dict[str, set[bytes | None]]:
    """Return what each name may hold after a power loss at the end; None: it is not there."""
    trees = [tree for _, tree in states_after(recording, len(recording.steps))]
    names = {path for tree in trees for path, (_, data) in tree.items() if data is not None}
    return {
        name: {tree[name][1] if name in tree else None for tree in trees} for name in sorted(names)
    }


CREATE = Effect("create", "new", number=0o644)
WRITE = Effect("write", "new", data=b"12")
RENAME = Effect("rename", "new", "old")


def test_what_is_not_synced_may_be_lost_whole_or_torn(tmp_path: Path) -> None:
    found = left(recorded(tmp_path, CREATE, WRITE))
    assert found["new"] == {None, b"", b"12", b"1", b"\0\0", b"\0002"}
    assert found["old"] == {b"old"}


def test_a_renaming_before_the_bytes_are_synced_may_leave_an_empty_file(tmp_path: Path) -> None:
    found = left(recorded(tmp_path, CREATE, WRITE, RENAME, Effect("sync", "")))
    assert found["old"] == {b"", b"12", b"1", b"\0\0", b"\0002"}


def test_a_careful_replacement_leaves_the_old_or_the_new_and_then_the_new(tmp_path: Path) -> None:
    steps = (CREATE, WRITE, Effect("sync", "new"), RENAME)
    assert left(recorded(tmp_path, *steps))["old"] == {b"old", b"12"}
    again = tmp_path / "again"
    again.mkdir()
    assert left(recorded(again, *steps, Effect("sync", ""))) == {"old": {b"12"}}


def test_what_happened_in_one_directory_is_kept_in_its_order(tmp_path: Path) -> None:
    other = Effect("create", "later", number=0o644)
    found = [
        {name for name in tree if name}
        for _, tree in states_after(recorded(tmp_path, CREATE, other), 2)
    ]
    assert {"old", "later"} not in found
    assert {"old", "new"} in found


def test_different_directories_know_nothing_of_each_other(tmp_path: Path) -> None:
    steps = (
        Effect("mkdir", "a", number=0o755),
        Effect("sync", ""),
        Effect("create", "new", number=0o644),
        Effect("create", "a/later", number=0o644),
    )
    found = [
        {name for name in tree if name} for _, tree in states_after(recorded(tmp_path, *steps), 4)
    ]
    assert {"old", "a", "a/later"} in found
    assert {"old", "a", "new"} in found


def test_a_mode_that_was_not_synced_may_be_the_one_that_the_umask_gave(tmp_path: Path) -> None:
    recording = recorded(tmp_path, CREATE, Effect("chmod", "new", number=0o644))
    modes = {tree["new"][0] for _, tree in states_after(recording, 2) if "new" in tree}
    assert modes == {0o600, 0o644}
