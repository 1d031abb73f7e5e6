"""The sweep misses nothing: every step in the code is reached by a scenario, every command that writes has one."""

from __future__ import annotations

import ast
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from servingrepo.cli.main import COMMANDS
from tests.crash.counting import count
from tests.crash.power import steps_of
from tests.crash.scenarios import SCENARIOS, Scenario, prepare
from tests.crash.sites import PACKAGE
from tests.crash.test_sweep import OTHERS, set_stage
from tests.crash.test_sweep import play as played_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.forking import Forking

NOT_SWEPT = {
    "export": "it changes nothing in a repository; tests/crash/test_export.py interrupts it",
    "smoke": "it changes nothing in a repository; tests/verbs/test_smoke_leftovers.py kills it",
    "warmup": "it changes nothing in a repository; tests/verbs/test_warmup.py fails each of its steps",
    **dict.fromkeys(
        ("scan", "diff", "status", "list", "show", "history", "report", "doctor", "run-server"),
        "it changes nothing in a repository",
    ),
}
"""Commands without a scenario, and why they need none."""

NEED_SERVERS = {
    "switch.file-between": "tests/fleet/test_polling.py kills there",
    "switch.file-labelled": "tests/fleet/test_polling.py switches labels by file",
    "switch.going-back": "tests/verbs/test_phases.py goes back there",
    "switch.stage-dropped": "tests/verbs/test_phases.py rolls back in stages",
    **dict.fromkeys(
        (
            f"switch.{step}"
            for step in ("gathered", "stage-told", "stage-proven", "drop-told", "dropped")
        ),
        "tests/verbs/test_phases.py stops there",
    ),
    **dict.fromkeys(
        (f"stragglers.{end}" for end in ("before-write", "before-sync", "before-rename")),
        "a note for the next command: tests/fleet/test_fleet.py",
    ),
    **dict.fromkeys(
        (f"stragglers.{end}" for end in ("after-rename", "done")),
        "a note for the next command: tests/fleet/test_fleet.py",
    ),
}
"""Steps that only a change of live servers reaches, and which tests do."""

NEED_KERAS = {
    f"export.{end}": "tests/crash/test_export.py"
    for end in ("made", "before-rename", "after-rename", "done")
}
"""Steps of `export`, which no scenario has: each would load Keras."""

NEED_SMOKE = {
    f"cases.{end}": "tests/verbs/test_written_cases.py"
    for end in ("before-write", "before-sync", "before-rename", "after-rename", "done")
}
"""Steps of `smoke --write-cases`, which no scenario has: each would start a server. The file is the user's own."""

NEED_WARMUP = {
    f"warmup.{end}": "tests/verbs/test_warmup.py"
    for end in ("before-write", "before-sync", "before-rename", "after-rename", "done")
}
"""Steps of `warmup`, which no scenario has: each would start a server. The file lies in the run."""

NEED_REPORTS = {
    f"report.{end}": "tests/crash/test_reports.py"
    for end in ("before-write", "before-sync", "before-rename", "after-rename", "done")
}
"""Steps of a report that is written when the command itself is over, and outside of the repository."""

GOING_BACK = "c2-copy-back."
"""The steps after a C2 that failed: two faults are needed to be interrupted there, and have a test of their own."""


def steps_in_the_code() -> set[str]:
    """Return the name of every step that the code can reach.

    A method of the disk that takes `step=` has steps named after it; its callers say which.
    """
    names: set[str] = set()
    endings: dict[str, set[str]] = defaultdict(set)
    prefixes: dict[str, set[str]] = defaultdict(set)
    hands_on: dict[str, str] = {}
    for function, called, call in calls():
        for keyword in call.keywords:
            if keyword.arg == "step" and isinstance(keyword.value, ast.Constant):
                prefixes[called].add(str(keyword.value.value))
            elif keyword.arg == "step":
                hands_on[function] = called
        if called == "step" and isinstance(call.args[0], ast.Constant):
            names.add(str(call.args[0].value))
        elif called == "step" and isinstance(call.args[0], ast.JoinedStr):
            _, ending = call.args[0].values
            assert isinstance(ending, ast.Constant)
            endings[function].add(str(ending.value))
    for function, called in hands_on.items():
        prefixes[called] |= prefixes[function]
    for method, ends in endings.items():
        names |= {f"{prefix}{end}" for prefix in prefixes[method] for end in ends}
    return names


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Yield each call of a method or function, with the function it stands in and its name."""
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                        yield function.name, call.func.attr, call
                    elif isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                        yield function.name, call.func.id, call


def test_every_step_in_the_code_is_reached_by_a_scenario(
    memory: Path, runs: Path, forking: Forking
) -> None:
    reached: set[str] = set()
    for number, scenario in enumerate(SCENARIOS):
        folder = memory / str(number)
        folder.mkdir()
        start = prepare(folder / "start", scenario.start, runs=runs, forking=forking)
        steps = steps_of(scenario, start, folder / "steps", runs=runs, forking=forking)
        reached |= {step.partition("@")[0] for step in steps}
        shutil.rmtree(folder)
    known = {step for step in steps_in_the_code() if not step.startswith(GOING_BACK)}
    elsewhere = {
        **NEED_SERVERS,
        **NEED_KERAS,
        **NEED_SMOKE,
        **NEED_WARMUP,
        **NEED_REPORTS,
    }.keys()
    assert elsewhere <= known
    assert known - reached == elsewhere
    assert reached - known == set()
    assert len(known) > 40


def test_every_command_that_writes_has_a_scenario() -> None:
    commands = {name for group in COMMANDS.values() for name in group}
    swept = {scenario.arguments[0] for scenario in SCENARIOS}
    assert commands - swept - NOT_SWEPT.keys() == set()
    assert NOT_SWEPT.keys() & swept == set()


def going_back() -> Scenario:
    return next(one for one in SCENARIOS if one.name == "serve")


@pytest.mark.parametrize(
    "fault",
    ["kill", *(pytest.param(one, marks=pytest.mark.crash) for one in OTHERS)],
)
def test_a_change_that_failed_and_is_interrupted_while_it_is_taken_back_has_not_happened(
    fault: str, memory: Path, runs: Path, forking: Forking, request: pytest.FixtureRequest
) -> None:
    """The disk refuses C2, and then something else goes wrong while the copy is put back."""
    stage = set_stage(going_back(), memory, runs=runs, forking=forking)
    steps = sorted(step for step in steps_in_the_code() if step.startswith(GOING_BACK))
    wrong = []
    for step in steps:
        found = played_with(stage, f"c2.before-rename=EIO,{step}", fault)
        wrong += [f"{step}={fault}: {one}" for one in found]
    count(request, "fault points", {"faults": len(steps)})
    assert len(steps) == 5
    assert wrong == []
