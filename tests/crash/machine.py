"""Random sequences of commands with faults, on the real disk, against a model in memory (model.py).

    python -m tests.crash.machine --examples 1000 [--steps 30] [--seed N]

prints one JSON object with counts. Commands run in a process forked for each (forking.py), so a SIGKILL kills for
real. After a fault nobody knows at once whether the command has happened, so every world that is possible is kept;
what is on disk after the next recovery has to be one of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

import msgspec
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

import servingrepo
from servingrepo.repository.listing import list_models
from servingrepo.repository.repository import load_record, need_state
from servingrepo.storage.copying import hash_source
from servingrepo.storage.hashing import content_digest
from servingrepo.storage.tree import read_tree
from tests.crash.forking import Forking
from tests.crash.model import CONTENTS, OK, OPERATIONS, Model, Operation, World, command_of
from tests.crash.scenarios import write_runs
from tests.crash.state import broken_promises, served_is_whole

FAULTS = ("kill", "term", "int", "ENOSPC", "EIO", "EACCES")
FAULT_CODES = {"kill": -9, "term": 143, "int": 130, "ENOSPC": 51, "EIO": 50, "EACCES": 52}


class Stage(msgspec.Struct):
    """What all sequences share: where they play, and what has been counted."""

    folder: Path
    runs: Path
    forking: Forking
    contents: dict[str, str]
    steps: dict[str, tuple[str, ...]]
    counts: Counter[str] = msgspec.field(default_factory=Counter)


def set_stage(folder: Path, forking: Forking) -> Stage:
    """Write the run directories and where sequences start, and rehearse each command once, to learn its steps."""
    runs = write_runs(folder / "runs")
    trees = {name: runs / name / "saved_model" for name in CONTENTS}
    contents = {
        content_digest(hash_source(read_tree(tree, boundary=tree))): name
        for name, tree in trees.items()
    }
    start, _ = servingrepo.init(folder / "start")
    for name in CONTENTS[:4]:
        start.promote(runs / name, model="m", smoke=False)
    # So that nothing but its label protects one version, another is above most that can be served, one is free.
    start.label_set("m@1", "stable")
    start.label_set("m@4", "canary")
    root, record = folder / "rehearsal", folder / "steps"
    servingrepo.init(root)
    promotions = [("promote", str(runs / name), "--model", "m", "--no-smoke") for name in CONTENTS]
    rehearsed = [
        *((one, "") for one in promotions[:3]),
        *((("rollback", "m"), ""), (("rollback", "m", "--to", "1"), ""), (("unserve", "m"), "")),
        *((("mark-bad", "m@2", "--clear"), ""), (("serve", "m@2"), "")),
        *((("label", "set", "m@1", "stable"), ""), (("label", "remove", "m", "stable"), "")),
        *((("hold", "m"), ""), (("release-hold", "m"), ""), (("mark-bad", "m@1"), "")),
        *((("prune", "m", "--keep-last", "1"), ""), (("restore", "m@1"), "")),
        (("prune", "m", "--keep-last", "1", "--empty-trash"), ""),
        # What recovery does depends on what is left for it.
        *((promotions[3], "record.done"), (("recover",), "")),
        *((promotions[3], "c1.done"), (("recover",), "")),
        *((("rollback", "m", "--to", "latest"), "c2.done"), (("recover",), "")),
        *((("prune", "m", "--keep-last", "1"), "trash.done"), (("recover",), "")),
        *((("prune", "m", "--empty-trash"), "condemn.done"), (("recover",), "")),
    ]
    steps: dict[str, tuple[str, ...]] = {}
    for arguments, killed_at in rehearsed:
        record.write_bytes(b"")
        plan = f"{killed_at}=kill" if killed_at else f"record={record}"
        code, said = forking.run(
            "--root", str(root), *arguments, env={"SERVINGREPO_FAILPOINTS": plan}
        )
        assert code == (FAULT_CODES["kill"] if killed_at else 0), (arguments, said)
        name, reached = command_of(arguments), record.read_text().split()
        steps[name] = tuple(dict.fromkeys([*steps.get(name, ()), *reached]))
    return Stage(folder, runs, forking, contents, steps)


class Machine(RuleBasedStateMachine):
    """Commands and faults in any order; the class attribute is set by whoever runs it."""

    stage: ClassVar[Stage]

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine-", dir=self.stage.folder))
        shutil.copytree(self.stage.folder / "start", self.root, dirs_exist_ok=True)
        self.history = servingrepo.open(self.root).value.layout.history
        self.lines = self.history.read_bytes()
        self.worlds: list[World] = [world_of(self.root, self.stage.contents)]
        self.stage.counts["sequences"] += 1

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(operation=st.one_of(*OPERATIONS.values()))
    def undisturbed(self, operation: Operation) -> None:
        """Run a command; it recovers what the ones before it left, so what is there is known afterwards."""
        code, said = self._call(operation)
        outcomes = [operation.step(world) for world in self.worlds]
        expected = {one for one, _ in outcomes}
        assert code in expected, f"{operation.arguments}: exit {code}, not {expected}: {said}"
        self.worlds = distinct([world for one, world in outcomes if one == code])
        if code == OK and operation.arguments[0] != "promote":
            # A promotion that finds its content there already need not write, so need not recover.
            self._look()

    @rule(
        operation=st.one_of(*OPERATIONS.values()),
        fault=st.sampled_from((*FAULTS, "kill", "kill", "kill")),
        at=st.sampled_from(range(1000)),
        then_recover=st.booleans(),
    )
    def disturbed(self, operation: Operation, fault: str, at: int, then_recover: bool) -> None:
        """Run a command with a fault at one of its steps, and look at once or when others have written."""
        # Every command that writes settles first what the one before it left, and may die of that.
        steps = self.stage.steps[operation.command] * 3 + self.stage.steps["recover"]
        plan = f"{steps[at % len(steps)]}={fault}"
        code, said = self._call(operation, plan)
        outcomes = [operation.step(world) for world in self.worlds]
        expected = {FAULT_CODES[fault], *(one for one, _ in outcomes)}
        assert code in expected, f"{operation.arguments} {plan}: exit {code}: {said}"
        self.stage.counts[fault] += code == FAULT_CODES[fault]
        possible = [world for one, world in outcomes if one == code]
        if code == FAULT_CODES[fault]:
            possible += [*self.worlds, *(world for _, world in outcomes)]
            possible += [half for world in self.worlds for half in operation.halves(world)]
        self.worlds = distinct(possible)
        assert served_is_whole(self.root) == []
        if then_recover:
            code, said = self.stage.forking.run("--root", str(self.root), "recover")
            assert code == 0, said
            self._look()

    def _call(self, operation: Operation, plan: str = "") -> tuple[int, str]:
        arguments = [one.format(runs=self.stage.runs) for one in operation.arguments]
        code, said = self.stage.forking.run(
            "--root", str(self.root), *arguments, env={"SERVINGREPO_FAILPOINTS": plan}
        )
        assert "Traceback" not in said, said
        self.stage.counts["runs"] += 1
        self.stage.counts[operation.command] += 1
        return code, said

    def _look(self) -> None:
        """Compare the repository with the worlds that are possible; from now on it is the one that is there."""
        assert broken_promises(self.root, history_before=self.lines) == []
        if self.history.exists():
            self.lines = self.history.read_bytes()
        actual = world_of(self.root, self.stage.contents)
        assert actual in self.worlds, f"there is {actual}, possible is {self.worlds}"
        self.worlds = [actual]
        self.stage.counts["looks"] += 1


def distinct(worlds: list[World]) -> list[World]:
    return [world for number, world in enumerate(worlds) if world not in worlds[:number]]


def world_of(root: Path, contents: dict[str, str]) -> World:
    """Read the world from the disk."""
    repo = servingrepo.open(root)
    world: World = {}
    rows = {row.model: row for row in list_models(repo.value)}
    for name in repo.models():
        state = need_state(repo.value, name)
        row = rows.get(name)
        if (
            row is None
        ):  # a list leaves out a model of which nothing came; its number is burnt all the same
            world[name] = Model(highest=state.highest)
            continue
        served: list[int] = []
        labelled: set[tuple[str, int]] = set()
        for event in repo.history(name):
            labelled |= {*event.labels_before.items(), *event.labels_after.items()}
            for one in (event.served_before, event.served_after):
                if one is not None and (not served or served[-1] != one):
                    served.append(one)
        records = {one: load_record(repo.value, name, one) for one in (*row.versions, *row.trash)}
        known = {one: contents[record.digest] for one, record in records.items() if record}
        world[name] = Model(
            versions={one: known[one] for one in row.versions},
            trash={one: known[one] for one in row.trash},
            bad={one: contents[mark.digest] for one, mark in state.bad.items()},
            labels=dict(row.labels),
            labelled=frozenset(labelled),
            held=row.held,
            pinned=row.served,
            served=tuple(served),
            highest=state.highest,
        )
    return world


def play(stage: Stage, *, examples: int, steps: int, chosen: int | None) -> None:
    """Play sequences; `chosen` None takes the same ones each time.

    Raises:
        AssertionError: Something was not as promised; hypothesis prints the shortest sequence.
    """
    machine = type("Machine", (Machine,), {"stage": stage})
    run_state_machine_as_test(
        seed(chosen)(machine) if chosen is not None else machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=chosen is None,
            deadline=None,
            database=None,
            verbosity=Verbosity.quiet if chosen is None else Verbosity.normal,
            # To find the shortest sequence takes minutes: worth it where people wait for it.
            phases=[Phase.generate] if chosen is None else [Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where to work")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="servingrepo-machine-", dir=options.dir))
    began = time.monotonic()
    found: list[str] = []
    try:
        with Forking(folder / "output") as forking:
            stage = set_stage(folder, forking)
            try:
                play(stage, examples=options.examples, steps=options.steps, chosen=options.seed)
            except AssertionError as error:
                found.append("\n".join([str(error), *getattr(error, "__notes__", ())]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = dict(stage.counts)
    facts = {
        "lane": "sequences",
        "seconds": round(time.monotonic() - began, 1),
        "seed": options.seed,
        "sequences": counts.pop("sequences"),
        "runs": counts.pop("runs"),
        "violations": len(found),
        "counts": counts,
        "found": found,
    }
    print(json.dumps(facts, indent=1))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
