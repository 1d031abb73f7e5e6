"""A power loss at every point of a command: what it may leave is put on a disk, recovered and looked at."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import servingrepo
from servingrepo.errors import ServingRepoError
from servingrepo.repository.repository import model_names, need_state, open_repository
from tests.crash.filesystem import WHOLE, Recording, Tree, read_back, states_after, write_tree
from tests.crash.scenarios import Scenario, filled, prepare
from tests.crash.state import broken_promises, served, served_is_whole, state_of
from tests.crash.test_sweep import Stage, repeat
from tests.crash.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.forking import Forking

_VERSION = re.compile(r"models/([^/]+)/([0-9]+)")
_STAGED = re.compile(r"(models/[^/]+/\.staging/[^/]+)/.*")


@dataclass(frozen=True)
class Played:
    """A command that ran undisturbed, with all that it did to the disk."""

    scenario: Scenario
    start: Path
    recording: Recording
    before: dict[str, Any] | None
    end: dict[str, Any] | None
    runs: Path


@dataclass
class Count:
    """How much was tried, and what was wrong."""

    points: int = 0
    states: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Killed:
    """A command that was killed at one of its steps and recovered, with all that both did to the disk."""

    step: str
    played: Played


def play(scenario: Scenario, folder: Path, *, runs: Path) -> Played:
    """Run a scenario's command once, traced.

    The replay of all its steps must be what lies there: so nothing escaped the trace.
    """
    folder.mkdir(exist_ok=True)
    root = folder / "repo"
    with Tracing(folder / "output") as tracing:
        start = prepare(folder / "start", scenario.start, runs=runs, forking=tracing)
        shutil.copytree(start, root)
        code, said = tracing.run("--root", str(root), *filled(scenario.arguments, runs))
        assert code == 0, said
    recording = Recording(start, tracing.effects(root))
    replayed = recording.tree(range(len(recording.steps)))
    assert contents(replayed) == contents(read_back(root))
    return Played(scenario, start, recording, state_of(start), state_of(root), runs)


def play_killed(
    scenario: Scenario, folder: Path, *, runs: Path, stride: int = 1, first: int = 0
) -> Iterator[Killed]:
    """Kill a scenario's command at its steps, one by one, and recover each time, all of it traced.

    A process that dies loses nothing of what it wrote, synced or not: recovery finds it, and must not build on
    what a power loss may still take away.
    """
    folder.mkdir(exist_ok=True)
    with Tracing(folder / "output") as tracing:
        start = prepare(folder / "start", scenario.start, runs=runs, forking=tracing)
        steps = steps_of(scenario, start, folder / "steps", runs=runs, forking=tracing)
        chosen = steps[first % stride :: stride]
        for number, step in enumerate(chosen):
            root = folder / f"repo-{number}"
            shutil.copytree(start, root)
            call = ("--root", str(root))
            plan = {"SERVINGREPO_FAILPOINTS": f"{step}=kill"}
            code, said = tracing.run(*call, *filled(scenario.arguments, runs), env=plan)
            assert code < 0, said
            again = scenario.arguments if scenario.start == "nothing" else ("recover",)
            code, said = tracing.run(*call, *again)
            assert code == 0, said
    for number, step in enumerate(chosen):
        root = folder / f"repo-{number}"
        recording = Recording(start, tracing.effects(root))
        replayed = recording.tree(range(len(recording.steps)))
        assert contents(replayed) == contents(read_back(root)), step
        now = state_of(root)
        yield Killed(step, Played(scenario, start, recording, state_of(start), now, runs))
        shutil.rmtree(root)


def steps_of(
    scenario: Scenario, start: Path, record: Path, *, runs: Path, forking: Forking
) -> list[str]:
    """Return the steps that a scenario's command reaches."""
    root = record.with_name("once")
    shutil.copytree(start, root)
    code, said = forking.run(
        *("--root", str(root), *filled(scenario.arguments, runs)),
        env={"SERVINGREPO_FAILPOINTS": f"record={record}"},
    )
    assert code == 0, said
    shutil.rmtree(root)
    return list(dict.fromkeys(record.read_text().split()))


def contents(tree: Tree) -> dict[str, bytes | None]:
    """Return a tree without its modes: root's umask, not the strictest one, made those on the disk."""
    return {path: data for path, (_, data) in tree.items()}


def lose_power(
    played: Played,
    work: Path,
    *,
    forking: Forking | None = None,
    only_at_end: bool = False,
) -> Count:
    """Try every state that a power loss may leave after every step; equal ones once.

    With `forking` the command is called again where all or nothing was lost.
    What lies in staging is looked at by nobody and removed by recovery, so states that differ only there are equal.
    """
    count = Count()
    seen: set[bytes] = set()
    last = len(played.recording.steps)
    burnt: dict[str, int] = {}
    for until in range(last + 1):
        if until and (found := _appeared(played.recording, until)):
            burnt[found[0]] = max(found[1], burnt.get(found[0], 0))
        if only_at_end and until != last:
            continue
        count.points += 1
        for said, tree in states_after(played.recording, until):
            key = digest_of(tree) + (b"end" if until == last else b"") + repr(burnt).encode()
            if key in seen:
                continue
            seen.add(key)
            count.states += 1
            count.kinds[said.split(":", 1)[0]] += 1
            shutil.rmtree(work, ignore_errors=True)
            write_tree(tree, work)
            where = f"after step {until} of {last} ({_said(played.recording, until)}), {said}"
            try:
                count.wrong += [
                    f"{where}: {one}"
                    for one in problems(played, work, burnt=burnt, ended=until == last)
                ]
                if forking is not None and said in WHOLE:
                    count.wrong += [
                        f"{where}: {one}" for one in called_again(played, work, forking=forking)
                    ]
            except ServingRepoError as error:
                count.wrong.append(f"{where}: {error.message} {error.problems}")
    return count


def problems(played: Played, root: Path, *, burnt: dict[str, int], ended: bool) -> Iterator[str]:
    """Recover what the power loss left; yield all that is not as promised."""
    yield from (f"before recovery: {one}" for one in served_is_whole(root))
    if state_of(root) is None:
        if played.scenario.start != "nothing" or ended:
            yield "there is no repository any more"
        servingrepo.init(root)
    servingrepo.open(root).recover()
    now = state_of(root)
    history = played.start / ".servingrepo" / "history.jsonl"
    yield from broken_promises(
        root, history_before=history.read_bytes() if history.exists() else b""
    )
    yield from wrong_modes(root)
    if served(now) not in (served(played.before), served(played.end)):
        yield "what is served is neither the old nor the new"
    repo = open_repository(root)
    for model, number in burnt.items():
        if model not in model_names(repo) or need_state(repo, model).highest < number:
            yield f"{model}@{number} was seen and could be given away again"
    if ended and now != played.end:
        yield f"the command had ended well, and its work is not durable: {now}"


def called_again(played: Played, root: Path, *, forking: Forking) -> Iterator[str]:
    """Call the command again after the power loss; yield all that is not as without one."""
    stage = Stage(
        scenario=played.scenario,
        start=played.start,
        runs=played.runs,
        work=root,
        forking=forking,
        before=played.before,
        end=played.end,
        steps=(),
    )
    yield from repeat(stage, ["--root", str(root)], happened=state_of(root) == played.end)


def wrong_modes(root: Path) -> Iterator[str]:
    """Yield what a server that runs as another user could not read."""
    shelf = root / "models"
    for path, (mode, data) in read_back(shelf).items():
        wanted = 0o755 if data is None else 0o644
        if mode != wanted and not path.startswith(".models.config") and "/.staging" not in path:
            yield f"models/{path} has mode {mode:o}"


def digest_of(tree: Tree) -> bytes:
    """Return what two trees have in common if they need not both be tried."""
    state = hashlib.blake2b()
    for path, (mode, data) in sorted(tree.items()):
        if _STAGED.fullmatch(path):
            continue
        body = b"/" if data is None else hashlib.blake2b(data).digest()
        state.update(f"{path}\0{mode}\0".encode() + body)
    return state.digest()


def _appeared(recording: Recording, until: int) -> tuple[str, int] | None:
    """Return the version that the last step made visible."""
    found = _VERSION.fullmatch(recording.steps[until - 1].said.rpartition(" ")[2])
    return (found[1], int(found[2])) if found else None


def _said(recording: Recording, until: int) -> str:
    return recording.steps[until - 1].said if until else "nothing"
