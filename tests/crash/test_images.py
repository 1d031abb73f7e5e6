"""Every writing command on a mounted ext4 and xfs, whose image is copied at every step, mounted and recovered."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.counting import count
from tests.crash.filesystem import Recording
from tests.crash.images import KINDS, copy_image, make_image, mounted, sync, why_not
from tests.crash.power import Played, problems, steps_of
from tests.crash.scenarios import SCENARIOS, Scenario, filled, prepare
from tests.crash.state import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.forking import Forking

reason = cache(why_not)

TOGETHER = ("copy.before-write@", "copy.before-sync@")
"""Steps of several threads: two that come to one at the same time are stopped once."""


def named(scenario: Scenario) -> str:
    return scenario.name


@pytest.fixture
def shelf(memory: Path) -> Iterator[Path]:
    """A folder for images; mounts below it are gone before it is."""
    with tempfile.TemporaryDirectory(prefix="servingrepo-images-", dir=memory) as name:
        yield Path(name)


def stops(arguments: list[str], steps: list[str], output: Path) -> Iterator[int | None]:
    """Run the real command, stopped at each of its steps; yield None there, and its exit code at its end."""
    plan = ",".join(f"{step}=stop" for step in steps)
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "servingrepo", *arguments],
        {**os.environ, "SERVINGREPO_FAILPOINTS": plan},
        file_actions=[(os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)],
    )
    os.close(said)
    ended = False
    try:
        while not ended:
            _, status = os.waitpid(process, os.WUNTRACED)
            ended = not os.WIFSTOPPED(status)
            yield os.waitstatus_to_exitcode(status) if ended else None
            if not ended:
                os.kill(process, signal.SIGCONT)
    finally:
        if not ended:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


@pytest.mark.crash
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_a_power_loss_at_any_step_on_a_real_file_system_leaves_the_state_before_or_after(
    kind: str,
    scenario: Scenario,
    shelf: Path,
    runs: Path,
    forking: Forking,
    request: pytest.FixtureRequest,
) -> None:
    if reason(kind):
        pytest.skip(reason(kind))
    start = prepare(shelf / "start", scenario.start, runs=runs, forking=forking)
    end = shelf / "end"
    shutil.copytree(start, end)
    code, said = forking.run("--root", str(end), *filled(scenario.arguments, runs))
    assert code == 0, said
    played = Played(scenario, start, Recording(start, ()), state_of(start), state_of(end), runs)
    image = make_image(shelf / "image", kind)
    copies = 0
    wrong: list[str] = []
    with mounted(image, shelf / "here", kind) as here:
        # Learnt here: a command leaves out what a file system has no room for (spare.py).
        steps = steps_of(scenario, start, here / "steps", runs=runs, forking=forking)
        root = here / "repo"
        shutil.copytree(start, root)
        sync(here)
        arguments = ["--root", str(root), *filled(scenario.arguments, runs)]
        for exit_code in stops(arguments, steps, shelf / "said"):
            assert exit_code in {None, 0}, (shelf / "said").read_text()
            copy = copy_image(image, shelf / "copy")
            with mounted(copy, shelf / "there", kind) as there:
                found = list(problems(played, there / "repo", burnt={}, ended=exit_code == 0))
            wrong += [f"copy {copies}: {one}" for one in found]
            copies += 1
    count(request, "images", {kind: copies})
    assert copies > len([one for one in steps if not one.startswith(TOGETHER)])
    assert not wrong, "\n".join(wrong)
