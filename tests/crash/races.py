"""Many processes at one repository, killed at random, while readers and a poller check all that they see.

    python -m tests.crash.races --seconds 120 [--processes 16] [--seed N] [--dir DIR]

prints one JSON object with what was done, refused and killed, and every violation. The process that is started
imports everything once and forks the workers, so that a worker costs milliseconds; each then calls the Python
API, which the commands call too, on a repository that it opens anew for each operation.

A new command joins with a line in OPERATIONS: a function that is given the worker and returns what it promises
of the end (`Promise`), or None. Errors of servingrepo count as refusals if their slug is in EXPECTED.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import servingrepo
from servingrepo.errors import ServingRepoError, StorageFailed, UsageError
from servingrepo.modelconfig import models, parse
from servingrepo.modelconfig.names import names_by_version
from servingrepo.repository.repository import load_record, record_numbers
from servingrepo.repository.retention import Keep
from servingrepo.storage.hashing import content_digest, hash_tree
from servingrepo.storage.lock import read_owner
from servingrepo.testing.exports import write_export
from tests.crash.state import broken_promises

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from servingrepo.api import OpenRepository
    from servingrepo.repository.history import Event

MODELS = ("a", "b", "c")
MARKED = "b"
"""The model whose versions are marked bad by name. In the others only a rollback marks, the version that it left:
there a reader that finds the served version bad has seen half of a change."""

SHARED_RUNS = 6
EXPECTED = frozenset(
    {
        "locked",
        "no-such-version",
        "nothing-to-roll-back",
        "version-bad",
        "number-used",
    }
)
Promise = tuple[str, str, int | str]
"""What must be true in the end: ("published", model, version), ("recorded", model, id of the event)."""


@dataclass
class Worker:
    """One process's view: where it works, its own randomness, and what it noticed."""

    root: Path
    runs: Path
    random: random.Random
    wrong: list[str] = field(default_factory=list)

    def open(self) -> OpenRepository:
        """Open the repository anew, as each command does."""
        return servingrepo.open(self.root, lock_wait=60)

    def model(self) -> str:
        """Choose a model."""
        return self.random.choice(MODELS)

    def version(self, repo: OpenRepository, model: str) -> int:
        """Choose one of the numbers that a model has had, recent ones rather."""
        numbers = record_numbers(repo.value, model) or (1,)
        return self.random.choice(numbers[-4:])

    def run(self) -> Path:
        """Choose a run: new content, or one that others promote too."""
        if self.random.random() < 0.5:
            return self.runs / f"shared{self.random.randrange(SHARED_RUNS)}"
        run = self.runs / f"new-{os.getpid()}-{self.random.getrandbits(48):x}"
        write_export(run / "saved_model", slope=self.random.random(), offset=self.random.random())
        return run

    def check(self, *, that: bool, said: str) -> None:
        """Note a violation."""
        if not that:
            self.wrong.append(said)


# what writes ----------------------------------------------------------------------------------------


def promote(worker: Worker) -> Promise | None:
    model = worker.model()
    serve = worker.random.choice([None, True, False])
    done = worker.open().promote(worker.run(), model=model, smoke=False, serve=serve)
    return ("published", model, done.version) if done.published else None


def rollback(worker: Worker) -> None:
    worker.open().rollback(worker.model(), mark_bad=worker.random.random() < 0.3, message="race")


def serve(worker: Worker) -> None:
    repo, model = worker.open(), worker.model()
    repo.serve(f"{model}@{worker.version(repo, model)}")


def unserve(worker: Worker) -> None:
    worker.open().unserve(worker.model())


def hold(worker: Worker) -> Promise:
    model = worker.model()
    return ("recorded", model, worker.open().hold(model, message="race").id)


def release_hold(worker: Worker) -> None:
    worker.open().release_hold(worker.model())


def mark_bad(worker: Worker) -> None:
    repo = worker.open()
    repo.mark_bad(f"{MARKED}@{worker.version(repo, MARKED)}", message="race")


def clear_bad(worker: Worker) -> None:
    repo, model = worker.open(), worker.model()
    bad = [row.version for row in repo.show(model).versions if row.bad is not None]
    if bad:
        repo.mark_bad(f"{model}@{worker.random.choice(bad)}", clear=True)


def label_set(worker: Worker) -> None:
    repo, model = worker.open(), worker.model()
    label, serve = worker.random.choice(["stable", "canary"]), worker.random.random() < 0.5
    with suppress(
        UsageError
    ):  # unlabelled clients would get another version, and that was not asked for
        repo.label_set(f"{model}@{worker.version(repo, model)}", label, serve=serve)


def label_remove(worker: Worker) -> None:
    worker.open().label_remove(worker.model(), worker.random.choice(["stable", "canary"]))


def prune(worker: Worker) -> None:
    worker.open().prune(worker.model(), keep=Keep(last=worker.random.randint(3, 6)))


def restore(worker: Worker) -> None:
    repo, model = worker.open(), worker.model()
    trash = repo.show(model).trash
    if trash:
        repo.restore(f"{model}@{worker.random.choice(trash).version}")


def recover(worker: Worker) -> None:
    worker.open().recover()


# what reads -----------------------------------------------------------------------------------------


def read_list(worker: Worker) -> None:
    for row in worker.open().list():
        about = f"list: {row}"
        worker.check(
            that=set(row.pinned) <= set(row.versions), said=f"pinned and not there: {about}"
        )
        worker.check(that=set(row.labels.values()) <= set(row.pinned), said=f"label: {about}")
        worker.check(that=not row.foreign, said=f"foreign: {about}")
        if row.model != MARKED:
            worker.check(that=not set(row.pinned) & set(row.bad), said=f"bad is served: {about}")


def read_show(worker: Worker) -> None:
    model = worker.model()
    shown = worker.open().show(model)
    known = {row.version for row in shown.versions}
    worker.check(that=shown.served in {None, *known}, said=f"served and not there: {shown}")
    worker.check(that=shown.highest >= max(known, default=0), said=f"highest: {shown}")
    worker.check(that=not shown.foreign, said=f"foreign: {shown}")
    if model != MARKED:
        bad = [row.version for row in shown.versions if row.bad is not None and row.served]
        worker.check(that=not bad, said=f"bad is served: {shown}")


def read_status(worker: Worker) -> None:
    status = worker.open().status()
    worker.check(that=not status.problems, said=f"problems: {status.problems}")
    worker.check(that=not status.notes, said=f"notes: {status.notes}")
    for row in status.models:
        excused = row.model == MARKED
        drift = [one for one in row.drift if not (excused and one.reason == "marked-bad")]
        worker.check(that=not drift, said=f"drift: {drift}")
        worker.check(that=not row.foreign, said=f"foreign: {row}")


def read_history(worker: Worker) -> None:
    events = list(worker.open().history())
    worker.wrong += broken_chain(events)
    last = list(worker.open().history(limit=5))
    ids = [event.id for event in list(worker.open().history())]
    worker.check(that={event.id for event in last} <= set(ids), said="the tail is not in the whole")


def read_verify(worker: Worker) -> None:
    repo, model = worker.open(), worker.model()
    for one in repo.verify(f"{model}@{worker.version(repo, model)}"):
        worker.check(that=one.ok, said=f"verify: {one.subject}: {one.problems}")


OPERATIONS: Mapping[str, tuple[int, Callable[[Worker], Promise | None]]] = {
    "promote": (6, promote),
    "rollback": (3, rollback),
    "serve": (3, serve),
    "unserve": (1, unserve),
    "hold": (1, hold),
    "release-hold": (2, release_hold),
    "mark-bad": (1, mark_bad),
    "mark-bad --clear": (2, clear_bad),
    "label set": (2, label_set),
    "label remove": (1, label_remove),
    "prune": (2, prune),
    "restore": (1, restore),
    "recover": (1, recover),
    "list": (3, read_list),
    "show": (3, read_show),
    "status": (3, read_status),
    "history": (2, read_history),
    "verify": (3, read_verify),
}
"""Each operation with how often it is drawn."""


def broken_chain(events: list[Event]) -> list[str]:
    """Return where history says one thing twice, or a change that does not begin where the last one ended."""
    wrong = [
        f"twice in history: {one}" for one, n in Counter(e.id for e in events).items() if n > 1
    ]
    pinned: dict[str, tuple[int, ...]] = defaultdict(tuple)
    for event in events:
        if event.before or event.after:
            if event.before != pinned[event.model]:
                wrong.append(f"{event} follows {pinned[event.model]}")
            pinned[event.model] = event.after
    return wrong


# the processes --------------------------------------------------------------------------------------


def work(worker: Worker, log: Path, end: float) -> None:
    """Draw operations until the time is over, writing down how each ended before the next begins."""
    names = list(OPERATIONS)
    weights = [OPERATIONS[name][0] for name in names]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while time.monotonic() < end:
        (name,) = worker.random.choices(names, weights)
        entry: dict[str, Any] = {"operation": name, "outcome": "ok"}
        try:
            entry["promise"] = OPERATIONS[name][1](worker)
        except ServingRepoError as error:
            entry["outcome"] = error.slug
            if error.slug not in EXPECTED:
                worker.wrong.append(f"{error.slug}: {error.message}: {error.problems}")
        except Exception:  # noqa: BLE001 - whatever it is, it is a violation
            worker.wrong.append(traceback.format_exc())
        entry["wrong"] = [f"{name}: {one}" for one in worker.wrong]
        worker.wrong.clear()
        os.write(descriptor, json.dumps(entry).encode() + b"\n")


def poll(root: Path, report: Path, stop: Path) -> None:
    """Behave like TensorFlow Serving's poller, only faster, until told to stop.

    Each integer that appears below a base path is taken at once for a whole version
    (file_system_storage_path_source.cc): all its bytes are compared with its record, which must be there
    before it. Each new models.config must be whole, and its versions there.
    """
    repo = servingrepo.open(root)
    shelf, looks = root / "models", 0
    seen: set[tuple[str, int]] = set()
    configs: set[bytes] = set()
    wrong: list[str] = []
    while not stop.exists():
        looks += 1
        for model in MODELS:
            base = shelf / model
            try:
                found = names_by_version(one.name for one in base.iterdir())
            except FileNotFoundError:
                continue
            for number in found.keys() - {version for name, version in seen if name == model}:
                seen.add((model, number))
                record = load_record(repo.value, model, number)
                try:
                    digest = content_digest(hash_tree(base / found[number][0]))
                except StorageFailed:
                    if (base / str(number)).exists():
                        raise
                    continue  # it was pruned while it was read
                if record is None or record.digest != digest:
                    wrong.append(f"poller: {model}@{number} was not whole when it was seen first")
        text = (shelf / "models.config").read_bytes()
        if text in configs:
            continue
        configs.add(text)
        for one in models(parse(text.decode(), source="models.config")):
            wrong += [
                f"poller: {one.name}@{version} is pinned and not there"
                for version in one.versions
                if not (shelf / one.name / str(version) / "saved_model.pb").is_file()
            ]
    facts = {"looks": looks, "versions": len(seen), "configs": len(configs), "wrong": wrong}
    report.write_text(json.dumps(facts))


def forked(task: Callable[[], None]) -> int:
    """Run a task in a child process and return its pid."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        task()
        code = 0
    except BaseException:  # noqa: BLE001 - a fork must not fall into its parent's loop
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def race(folder: Path, *, processes: int, seconds: float, seed: int) -> dict[str, Any]:
    """Let the processes loose and return what happened; `violations` is what must be none."""
    chance = random.Random(seed)  # noqa: S311 - a seed that can be given again
    root, runs, logs, stop = (folder / name for name in ("repository", "runs", "logs", "stop"))
    logs.mkdir(parents=True)
    repo, _ = servingrepo.init(root)
    for number in range(SHARED_RUNS):
        write_export(runs / f"shared{number}" / "saved_model", slope=float(number), variables=True)
    for model in MODELS:
        repo.promote(runs / "shared0", model=model, smoke=False)
    history_before = repo.value.layout.history.read_bytes()
    poller = forked(lambda: poll(root, folder / "poller.json", stop))
    end = time.monotonic() + seconds
    alive: set[int] = set()
    started = kills = 0
    wrong: list[str] = []

    def start() -> None:
        nonlocal started
        started += 1
        worker = Worker(root, runs, random.Random(seed * 100_003 + started))  # noqa: S311 - as above
        log = logs / f"{started}.jsonl"
        alive.add(forked(lambda: work(worker, log, end)))

    def reap(pid: int, status: int) -> None:
        alive.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        if code not in {0, -signal.SIGKILL}:
            wrong.append(f"a worker ended with {code}")

    while time.monotonic() < end:
        while len(alive) < processes:
            start()
        time.sleep(chance.uniform(0.01, 0.12))
        holder = read_owner(repo.value.layout.lock)
        # Half of those who are killed hold the lock, or did a moment ago: there it hurts most.
        by_chance = holder is None or holder.pid not in alive or chance.random() < 0.5
        victim = chance.choice(sorted(alive)) if by_chance or holder is None else holder.pid
        os.kill(victim, signal.SIGKILL)
        kills += 1
        reap(*os.waitpid(victim, 0))
    for pid in sorted(alive):
        reap(*os.waitpid(pid, 0))
    stop.touch()
    os.waitpid(poller, 0)
    return {
        "lane": "races",
        "seconds": seconds,
        "processes": processes,
        "seed": seed,
        "started": started,
        "kills": kills,
        **judged(folder, wrong, history_before),
    }


def judged(folder: Path, wrong: list[str], history_before: bytes) -> dict[str, Any]:
    """Recover, look at what is left, and hold it against what the workers were told."""
    repo = servingrepo.open(folder / "repository")
    repo.recover()
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    promises: list[Promise] = []
    for log in sorted((folder / "logs").iterdir()):
        for line in log.read_bytes().splitlines():
            entry = json.loads(line)
            outcomes[entry["operation"]][entry["outcome"]] += 1
            wrong += entry["wrong"]
            if entry.get("promise"):
                promises.append(tuple(entry["promise"]))
    seen = json.loads((folder / "poller.json").read_text())
    wrong += seen.pop("wrong")
    wrong += broken_promises(repo.root, history_before=history_before)
    events = list(repo.history())
    wrong += broken_chain(events)
    wrong += [f"promised twice: {one}" for one, n in Counter(promises).items() if n > 1]
    recorded = {("recorded", event.model, event.id) for event in events}
    published = {
        ("published", event.model, event.version) for event in events if event.action == "promote"
    }
    wrong += [f"lost: {one}" for one in promises if one not in recorded | published]
    rows = repo.list()
    for row in rows:
        promoted = [e.version for e in events if e.action == "promote" and e.model == row.model]
        if sorted((*row.versions, *row.trash)) != sorted(
            one for one in promoted if one is not None
        ):
            wrong.append(f"{row.model}: there {row.versions}, {row.trash}; promoted {promoted}")
    return {
        "runs": sum(sum(one.values()) for one in outcomes.values()),
        "violations": len(wrong),
        "operations": {name: dict(outcomes[name]) for name in OPERATIONS},
        "promises": len(promises),
        "versions": sum(len(row.versions) for row in rows),
        "history_lines": len(events),
        "recovered": sum(event.recovered for event in events),
        "poller": seen,
        "found": wrong[:50],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where to work; the file system decides the speed")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="servingrepo-races-", dir=options.dir))
    try:
        facts = race(
            folder, processes=options.processes, seconds=options.seconds, seed=options.seed
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(facts, indent=1))
    sys.exit(1 if facts["violations"] else 0)


if __name__ == "__main__":
    main()
