"""Every writing command, interrupted at every step in every way, then recovered, then called again.

The steps are those that the command really reaches. In the default lane each command is killed at every step
(promotions that are like others: at every fourth), and at every third step gets one of the other faults, in
turn; `-m crash` tries all.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.conftest import CASES
from tests.crash.scenarios import SCENARIOS, Scenario, filled, prepare
from tests.crash.state import broken_promises, leftovers, served, served_is_whole, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.crash.forking import Forking

SIGNALS = {"kill": -9, "term": 143, "int": 130}
ERRORS = {"ENOSPC": 51, "EIO": 50, "EACCES": 52}
OTHERS = ("term", "int", *ERRORS)
SAID = "all the same"
NOT_PRUNED = "was not pruned afterwards"
REPEATABLE = {"init", "config", "recover"}
"""Commands that may be called again without a thought, so that they need not say how far they came."""

ALIKE = {
    *("promote, second version", "promote --no-serve", "promote, held"),
    *("promote --prune", "prune --empty-trash"),
}
"""Commands with the steps of others: the default lane kills them at every fourth step."""


@dataclass(frozen=True)
class Stage:
    """Where one scenario is played: its beginning, its undisturbed end, and the steps between them."""

    scenario: Scenario
    start: Path
    runs: Path
    work: Path
    forking: Forking
    before: dict[str, Any] | None
    end: dict[str, Any] | None
    steps: tuple[str, ...]

    @property
    def arguments(self) -> list[str]:
        """The command after `--root`."""
        return filled(self.scenario.arguments, self.runs)


def set_stage(scenario: Scenario, folder: Path, *, runs: Path, forking: Forking) -> Stage:
    """Prepare the repository and run the command once undisturbed, to learn its steps and its end."""
    start = prepare(folder / "start", scenario.start, runs=runs, forking=forking)
    end, steps = folder / "end", folder / "steps"
    shutil.copytree(start, end)
    code, said = forking.run(
        "--root",
        str(end),
        *filled(scenario.arguments, runs),
        env={"SERVINGREPO_FAILPOINTS": f"record={steps}"},
    )
    assert code == 0, said
    history = history_of(start)
    assert not broken_promises(end, history_before=history)
    return Stage(
        scenario=scenario,
        start=start,
        runs=runs,
        work=folder / "work",
        forking=forking,
        before=state_of(start),
        end=state_of(end),
        steps=tuple(dict.fromkeys(steps.read_text().split())),
    )


def history_of(root: Path) -> bytes:
    path = root / ".servingrepo" / "history.jsonl"
    return path.read_bytes() if path.exists() else b""


def play(stage: Stage, step: str, fault: str) -> Iterator[str]:
    """Run the command with one fault, recover, and run it again; yield all that is not as promised."""
    root = stage.work
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(stage.start, root)
    call = ["--root", str(root)]
    before = stage.before
    code, said = stage.forking.run(
        *call, *stage.arguments, env={"SERVINGREPO_FAILPOINTS": f"{step}={fault}"}
    )
    if code not in ({SIGNALS[fault]} if fault in SIGNALS else {ERRORS[fault], 0}):
        yield f"exit {code}: {said}"
    yield from traces(said)
    yield from served_is_whole(root)
    if fault != "kill":
        known = {one.rpartition("/")[2] for one in leftovers(stage.start)}
        yield from (
            one
            for one in leftovers(root)
            if one.startswith("temporary") and one.rpartition("/")[2] not in known
        )
    if served(state_of(root)) not in (served(before), served(stage.end)):
        yield "what is served is neither the old nor the new"

    found = recover(stage, call)
    yield from found
    now = state_of(root)
    if now is not None:
        yield from broken_promises(root, history_before=history_of(stage.start))
    happened = now == stage.end
    if code == 0 and not happened and not (stage.scenario.best_effort and NOT_PRUNED in said):
        yield "it said 0, and it has not happened"
    told = SAID in said or stage.arguments[0] in REPEATABLE
    if code in ERRORS.values() and happened and before != stage.end and not told:
        yield f"it has happened, and nobody said so: {said}"
    yield from repeat(stage, call, happened=happened)


def recover(stage: Stage, call: list[str]) -> Iterator[str]:
    """Run `servingrepo recover`; before the end of an init there is no repository yet."""
    code, said = stage.forking.run(*call, "recover")
    yield from traces(said)
    expected = {0, 30} if stage.scenario.name == "init" else {0}
    if code not in expected:
        yield f"recover: exit {code}: {said}"


def repeat(stage: Stage, call: list[str], *, happened: bool) -> Iterator[str]:
    """Call the command again, without a fault: the same end, whatever happened before."""
    root, again = stage.work, stage.scenario.again
    if happened and not again:
        return
    code, said = stage.forking.run(*call, *stage.arguments)
    if code not in ({0} if not happened else again):
        yield f"called again: exit {code}: {said}"
    yield from traces(said)
    yield from broken_promises(root, history_before=history_of(stage.start))
    now, end = state_of(root), stage.end
    if stage.scenario.unserved and now is not None and end is not None:
        now, end = unserved(now), unserved(end)
    if now != end:
        yield f"called again it ends elsewhere: {now}"


def unserved(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state without what is served."""
    return {
        **state,
        "models": {name: {**one, "pinned": []} for name, one in state["models"].items()},
    }


def traces(said: str) -> list[str]:
    return [said] if "Traceback" in said or "mistake in servingrepo" in said else []


def sweep(stage: Stage, cases: Iterable[tuple[str, str]], request: pytest.FixtureRequest) -> None:
    """Play all cases, record how many they were, and fail with everything that was found."""
    found, count = [], 0
    for step, fault in cases:
        count += 1
        found += [f"{step}={fault}: {problem}" for problem in play(stage, step, fault)]
    assert count
    request.node.user_properties.append((CASES, count))
    if found:
        pytest.fail(f"{len(found)} in {count} cases\n" + "\n".join(found))


def named(scenario: Scenario) -> str:
    return scenario.name


def scenario_number(scenario: Scenario) -> int:
    return SCENARIOS.index(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_a_writing_command_killed_at_any_step_leaves_the_state_before_or_after(
    scenario: Scenario,
    memory: Path,
    runs: Path,
    forking: Forking,
    request: pytest.FixtureRequest,
) -> None:
    stage = set_stage(scenario, memory, runs=runs, forking=forking)
    stride = 4 if scenario.name in ALIKE else 1
    sweep(
        stage,
        ((step, "kill") for step in stage.steps[scenario_number(scenario) % stride :: stride]),
        request,
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_a_writing_command_with_another_fault_leaves_the_state_before_or_after(
    scenario: Scenario,
    memory: Path,
    runs: Path,
    forking: Forking,
    request: pytest.FixtureRequest,
) -> None:
    stage = set_stage(scenario, memory, runs=runs, forking=forking)
    first = scenario_number(scenario)
    sweep(
        stage,
        (
            (step, OTHERS[(first + number) % len(OTHERS)])
            for number, step in enumerate(stage.steps)
            if number % 3 == first % 3
        ),
        request,
    )


@pytest.mark.crash
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", [*SIGNALS, *ERRORS])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_a_writing_command_with_any_fault_at_any_step_leaves_the_state_before_or_after(
    scenario: Scenario,
    fault: str,
    memory: Path,
    runs: Path,
    forking: Forking,
    request: pytest.FixtureRequest,
) -> None:
    stage = set_stage(scenario, memory, runs=runs, forking=forking)
    sweep(stage, ((step, fault) for step in stage.steps), request)
