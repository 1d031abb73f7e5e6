"""Random sequences of commands with faults, on the real disk, against a model in memory.

    python -m tests.crash.machine --examples 1000 [--steps 30] [--seed N]

prints one JSON object with counts. Commands run in a process forked for each (forking.py), so a SIGKILL kills for
real. After a fault nobody knows at once whether the command has happened, so the model keeps every world that is
possible; what is on disk after the next recovery has to be one of them.

A new command joins with a strategy in OPERATIONS: the arguments, and a function from the world before to the exit
code and the world after. What a fault can leave besides before and after goes into `halves`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

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
from tests.crash.scenarios import write_runs
from tests.crash.state import broken_promises, served_is_whole

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

CONTENTS = ("first", "second", "third", "new")
MODELS = ("m", "m", "m", "n")
"""`n` is there to begin with nothing; what begins with something gets farther."""

FAULTS = ("kill", "term", "int", "ENOSPC", "EIO", "EACCES")
FAULT_CODES = {"kill": -9, "term": 143, "int": 130, "ENOSPC": 51, "EIO": 50, "EACCES": 52}
OK, NO_SUCH, BAD, NOTHING = 0, 32, 34, 38


# the model ------------------------------------------------------------------------------------------


class Model(msgspec.Struct, frozen=True):
    """What a model is: the content of each version by name, marks, a hold, what is served and was."""

    versions: dict[int, str] = {}
    trash: dict[int, str] = {}
    bad: frozenset[int] = frozenset()
    held: bool = False
    pinned: int | None = None
    served: tuple[int, ...] = ()
    highest: int = 0

    def pin(self, version: int | None) -> Model:
        """Serve a version, or none."""
        served = self.served
        for one in (self.pinned, version):
            if one is not None and (not served or served[-1] != one):
                served = (*served, one)
        return msgspec.structs.replace(self, pinned=version, served=served)

    def throw(self, version: int) -> Model:
        """Move a version to the trash."""
        versions = {one: content for one, content in self.versions.items() if one != version}
        trash = {**self.trash, version: self.versions[version]}
        return msgspec.structs.replace(self, versions=versions, trash=trash)

    def publish(self, content: str) -> Model:
        """Publish content as the next version."""
        number = self.highest + 1
        versions = {**self.versions, number: content}
        return msgspec.structs.replace(self, versions=versions, highest=number)


World = dict[str, Model]
Step = tuple[int, World]


class Operation(msgspec.Struct, frozen=True):
    """One command: its arguments, what it does to a world, and what a fault can leave half done."""

    arguments: tuple[str, ...]
    step: Callable[[World], Step]
    halves: Callable[[World], list[World]] = lambda _: []


def changed(world: World, name: str, **changes: object) -> World:
    return {**world, name: msgspec.structs.replace(world[name], **changes)}


def promote(name: str, content: str, serve: bool | None) -> Operation:
    def step(world: World) -> Step:
        model = world.get(name, Model())
        known = {**model.trash, **model.versions}
        if any(known.get(number) == content for number in model.bad):
            return BAD, world
        same = max((one for one, has in model.versions.items() if has == content), default=None)
        if same is not None:
            unfinished = serve is None and same > (model.pinned or 0) and same not in model.served
            wanted = not model.held and (serve or unfinished)
            return OK, {**world, name: model.pin(same)} if wanted else world
        after = model.publish(content)
        serve_it = serve is not False and not model.held
        return OK, {**world, name: after.pin(after.highest) if serve_it else after}

    def halves(world: World) -> list[World]:
        """The number is burnt, or the version is published and not served."""
        model = world.get(name, Model())
        burnt = msgspec.structs.replace(model, highest=model.highest + 1)
        code, after = step(world)
        if code != OK or len(after.get(name, Model()).versions) == len(model.versions):
            return []
        return [{**world, name: burnt}, {**world, name: model.publish(content)}]

    options = {None: (), True: ("--serve",), False: ("--no-serve",)}[serve]
    arguments = ("promote", f"{{runs}}/{content}", "--model", name, "--no-smoke", *options)
    return Operation(arguments, step, halves)


def rollback(name: str, to: int | None, mark: bool) -> Operation:
    def step(world: World) -> Step:
        if name not in world:
            return NO_SUCH, world
        model = world[name]
        target = previous(model) if to is None else to
        if target is None or target == model.pinned:
            return NOTHING, world
        if target in model.bad:
            return BAD, world
        if target not in model.versions:
            return NO_SUCH, world
        bad = model.bad | {model.pinned} if mark and model.pinned is not None else model.bad
        return OK, {**world, name: msgspec.structs.replace(model.pin(target), bad=bad)}

    where = () if to is None else ("--to", str(to))
    options = () if mark else ("--no-mark-bad",)
    return Operation(("rollback", name, *where, *options), step)


def previous(model: Model) -> int | None:
    """Say where a rollback goes: the version served before this one that is there and good."""
    served = list(model.served)
    if model.pinned in served:
        while served[-1] != model.pinned:
            served.pop()
    good = model.versions.keys() - model.bad - {model.pinned}
    return next((one for one in reversed(served) if one in good), None)


def serve(name: str, version: int) -> Operation:
    def step(world: World) -> Step:
        if name not in world:
            return NO_SUCH, world
        model = world[name]
        if version in model.bad:
            return BAD, world
        if version not in model.versions:
            return NO_SUCH, world
        return OK, {**world, name: model.pin(version)}

    return Operation(("serve", f"{name}@{version}"), step)


def unserve(name: str) -> Operation:
    def step(world: World) -> Step:
        return (OK, {**world, name: world[name].pin(None)}) if name in world else (NO_SUCH, world)

    return Operation(("unserve", name), step)


def hold(name: str, held: bool) -> Operation:
    def step(world: World) -> Step:
        return (OK, changed(world, name, held=held)) if name in world else (NO_SUCH, world)

    return Operation(("hold" if held else "release-hold", name), step)


def mark_bad(name: str, version: int, clear: bool) -> Operation:
    def step(world: World) -> Step:
        if name not in world:
            return NO_SUCH, world
        known = {**world[name].trash, **world[name].versions}
        bad, there = world[name].bad, world[name].bad if clear else known.keys()
        if version not in there:
            return NO_SUCH, world
        return OK, changed(world, name, bad=bad - {version} if clear else bad | {version})

    options = ("--clear",) if clear else ()
    return Operation(("mark-bad", f"{name}@{version}", *options), step)


def prune(name: str, last: int) -> Operation:
    def going(world: World) -> list[int]:
        model = world[name]
        if model.held:
            return []
        good = sorted(model.versions.keys() - model.bad)
        kept = {model.pinned, previous(model), *good[-last:]}
        return sorted(model.versions.keys() - kept)

    def step(world: World) -> Step:
        if name not in world:
            return NO_SUCH, world
        model = world[name]
        for version in going(world):
            model = model.throw(version)
        return OK, {**world, name: model}

    def halves(world: World) -> list[World]:
        """Versions go one after the other, the lowest first."""
        found, model = [], world.get(name)
        for version in going(world) if model is not None else ():
            assert model is not None
            model = model.throw(version)
            found.append({**world, name: model})
        return found

    return Operation(("prune", name, "--keep-last", str(last)), step, halves)


def restore(name: str, version: int) -> Operation:
    def step(world: World) -> Step:
        if name not in world or version not in world[name].trash:
            return NO_SUCH, world
        model = world[name]
        trash = {one: content for one, content in model.trash.items() if one != version}
        versions = {**model.versions, version: model.trash[version]}
        return OK, changed(world, name, versions=versions, trash=trash)

    return Operation(("restore", f"{name}@{version}"), step)


def recover() -> Operation:
    return Operation(("recover",), lambda world: (OK, world))


_names = st.sampled_from(MODELS)
_versions = st.sampled_from([1, 2, 3, 4])
OPERATIONS: dict[str, SearchStrategy[Operation]] = {
    "promote": st.builds(
        promote, _names, st.sampled_from(CONTENTS), st.sampled_from([None, True, False])
    ),
    "rollback": st.builds(rollback, _names, st.none(), st.booleans()),
    "rollback --to": st.builds(rollback, _names, _versions, st.booleans()),
    "serve": st.builds(serve, _names, _versions),
    "unserve": st.builds(unserve, _names),
    "hold": st.builds(hold, _names, st.booleans()),
    "mark-bad": st.builds(mark_bad, _names, _versions, st.booleans()),
    "prune": st.builds(prune, _names, st.sampled_from([1, 2])),
    "restore": st.builds(restore, _names, _versions),
    "recover": st.builds(recover),
}


# the machine ----------------------------------------------------------------------------------------


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
    for name in ("first", "second", "third"):
        start.promote(runs / name, model="m", smoke=False)
    root, record = folder / "rehearsal", folder / "steps"
    servingrepo.init(root)
    rehearsed = [
        *(("promote", str(runs / name), "--model", "m", "--no-smoke") for name in CONTENTS),
        *(("rollback", "m"), ("rollback", "m", "--to", "1"), ("serve", "m@2"), ("unserve", "m")),
        *(("hold", "m"), ("release-hold", "m"), ("mark-bad", "m@1"), ("recover",)),
        *(("prune", "m", "--keep-last", "1"), ("restore", "m@1")),
    ]
    steps: dict[str, tuple[str, ...]] = {}
    for arguments in rehearsed:
        record.write_bytes(b"")
        plan = {"SERVINGREPO_FAILPOINTS": f"record={record}"}
        code, said = forking.run("--root", str(root), *arguments, env=plan)
        assert code == 0, said
        steps[arguments[0]] = tuple(dict.fromkeys(record.read_text().split())) or ("none",)
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
        steps = self.stage.steps[operation.arguments[0]]
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
        self.stage.counts[operation.arguments[0]] += 1
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
    for row in list_models(repo.value):
        served: list[int] = []
        for event in repo.history(row.model):
            for one in (event.served_before, event.served_after):
                if one is not None and (not served or served[-1] != one):
                    served.append(one)
        records = {
            one: load_record(repo.value, row.model, one) for one in (*row.versions, *row.trash)
        }
        known = {one: contents[record.digest] for one, record in records.items() if record}
        world[row.model] = Model(
            versions={one: known[one] for one in row.versions},
            trash={one: known[one] for one in row.trash},
            bad=frozenset(row.bad),
            held=row.held,
            pinned=row.served,
            served=tuple(served),
            highest=need_state(repo.value, row.model).highest,
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
