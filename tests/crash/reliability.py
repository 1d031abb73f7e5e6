"""Runs every lane and prints the table that docs/reliability.md holds.

    python -m tests.crash.reliability [--only LANE] [--workers 2] [--json reliability.json]

A lane is a program that prints one JSON object, or a run of pytest whose tests say what they tried
(tests/crash/counting.py). Each object has `lane`, `violations`, and numbers: in `counts`, or beside them. A row is
said on stderr as soon as its lane ends, and a lane that fails keeps none of the others from running. Two programs
that mostly wait for the disk run beside the lanes that need processors.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.counting import JSON_TO

PROJECT = Path(__file__).resolve().parents[2]
LONGEST = 3600.0
"""Seconds after which a lane is taken to hang."""

HEADER = ("lane", "tried", "violations", "run by")


@dataclass(frozen=True)
class Lane:
    """One row: what is run for it, and which of its numbers are shown, in which words.

    `tests` are arguments of pytest; `module` is a program with its own. Rows that come out of one run of pytest
    name the same tests, and it is run once. A lane that `mounts` gets a mount namespace of its own, so that however
    it ends nothing stays mounted. One that waits for the disk runs `beside` the others.
    """

    name: str
    shown: tuple[tuple[str, str], ...]
    tests: tuple[str, ...] = ()
    module: tuple[str, ...] = ()
    mounts: bool = False
    beside: bool = False

    @property
    def command(self) -> str:
        """What a person would type for it."""
        program = f"pytest {' '.join(self.tests)}" if self.tests else f"-m {' '.join(self.module)}"
        return f"`{program}`"


_SWEEP = (
    *("-m", "crash", "tests/crash/test_sweep.py", "tests/crash/test_processes.py"),
    "tests/crash/test_steps.py",
)
_POWER = ("-m", "'crash or not crash'", "tests/crash/test_power_loss.py")
_IMAGES = ("-m", "crash", "tests/crash/test_images.py")

LANES = (
    Lane(
        "fault points",
        (("faults", "{} faults, one at every step of every writing command"),),
        tests=_SWEEP,
    ),
    Lane(
        "power loss",
        (("prefixes", "{} prefixes of what commands did"), ("states", "{} states of the disk")),
        tests=_POWER,
    ),
    Lane(
        "power loss after a kill",
        (("kills", "{} kills and recoveries"), ("states", "{} states of the disk")),
        tests=_POWER,
    ),
    Lane(
        "images",
        (("ext4", "{} copies of a mounted ext4"), ("xfs", "{} of a mounted xfs")),
        tests=_IMAGES,
        mounts=True,
    ),
    Lane(
        "races",
        (("runs", "{} operations of 16 processes"), ("kills", "{} processes killed")),
        module=("tests.crash.races",),
    ),
    Lane(
        "sequences",
        (("sequences", "{} random sequences"), ("runs", "{} commands")),
        module=("tests.crash.machine", "--examples", "200"),
        beside=True,
    ),
    Lane(
        "long-life",
        (("runs", "{} promotions into one model"),),
        module=("tests.crash.long_life",),
        beside=True,
    ),
    Lane(
        "mutations",
        (("removed", "{} fsyncs, locks and flags removed"), ("noticed", "{} noticed by a test")),
        module=("tests.crash.mutations",),
    ),
)
"""Every row of the table. A new lane is one more."""


@dataclass
class Session:
    """One call of the command: where its lanes may work, and which processes are theirs."""

    folder: Path
    workers: int
    done: dict[tuple[str, ...], list[dict[str, Any]]] = field(default_factory=dict)
    alive: set[int] = field(default_factory=set)
    given_up: bool = False

    def call(
        self, arguments: list[str], *, shown: bool = False, **environment: str
    ) -> tuple[int, str]:
        """Run a program to its end; return its exit code and what it said, unless that is `shown` to people.

        Nothing that it started outlives it.
        """
        process = subprocess.Popen(
            arguments,
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(self.folder), **environment},
            stdout=sys.stderr if shown else subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.alive.add(process.pid)
        try:
            said, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            print(f"{' '.join(arguments)} hangs: it is ended", file=sys.stderr)
            end_group(process.pid)
            said, _ = process.communicate()
        finally:
            end_group(process.pid)
            self.alive.discard(process.pid)
        return process.returncode, said or ""


def end_group(leader: int) -> None:
    """Kill what is left of a process group of ours."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def run(lane: Lane, session: Session) -> dict[str, Any]:
    """Run a lane, or take what the same run of pytest has told already; return its JSON object."""
    key = lane.tests or lane.module
    begun = time.monotonic()
    if key not in session.done:
        found = _by_pytest(lane, session) if lane.tests else _by_program(lane, session)
        session.done[key] = found
    seconds = {"seconds_of_the_run": round(time.monotonic() - begun)}
    for one in session.done[key]:
        if one.get("lane") == lane.name:
            return {**one, **seconds}
    return {"lane": lane.name, "counts": {}, **seconds}


def _by_pytest(lane: Lane, session: Session) -> list[dict[str, Any]]:
    target = Path(tempfile.mkdtemp(dir=session.folder)) / "counts.json"
    arguments = [one.strip("'") for one in lane.tests]
    unshare = shutil.which("unshare") if lane.mounts and os.geteuid() == 0 else None
    code, _ = session.call(
        [
            *([unshare, "--mount", "--propagation", "private"] if unshare else []),
            *(sys.executable, "-m", "pytest", "-q", "-n", str(session.workers), *arguments),
        ],
        shown=True,
        **{JSON_TO: str(target)},
    )
    found: list[dict[str, Any]] = json.loads(target.read_text()) if target.exists() else []
    return charged(lane, found, code)


def charged(lane: Lane, found: list[dict[str, Any]], code: int) -> list[dict[str, Any]]:
    """Charge a run of pytest with what failed in it without saying for which of its rows."""
    rows = [one.name for one in LANES if one.tests == lane.tests]
    ours = [one for one in found if one["lane"] in rows]
    failed = sum(one["violations"] for one in found)
    strays = failed - sum(one["violations"] for one in ours) or int(code != 0 and not failed)
    return [
        {**one, "violations": one["violations"] + (strays if number == 0 else 0)}
        for number, one in enumerate(ours)
    ]


def _by_program(lane: Lane, session: Session) -> list[dict[str, Any]]:
    code, said = session.call([sys.executable, "-m", *lane.module])
    try:
        found: dict[str, Any] = json.loads(said)
    except json.JSONDecodeError:
        return []
    return [{**found, "violations": found.get("violations") or int(code != 0)}]


def tried(lane: Lane, found: dict[str, Any]) -> str:
    """Say what a lane has tried; a number that is missing was not tried, and is said to be so."""
    numbers = {**found, **found.get("counts", {})}
    return ", ".join(
        words.format(f"{numbers[key]:,}") if numbers.get(key) else f"{key}: **not tried**"
        for key, words in lane.shown
    )


def complete(lane: Lane, found: dict[str, Any]) -> bool:
    """Tell whether everything of a lane was tried, and nothing was wrong."""
    numbers = {**found, **found.get("counts", {})}
    return found.get("violations") == 0 and all(numbers.get(key) for key, _ in lane.shown)


def row(lane: Lane, found: dict[str, Any]) -> str:
    """Return a lane's row of the table."""
    cells = (lane.name, tried(lane, found), str(found.get("violations", "?")), lane.command)
    return f"| {' | '.join(cells)} |"


def table(rows: list[str]) -> str:
    """Return the whole table, in Markdown."""
    return "\n".join([f"| {' | '.join(HEADER)} |", "| --- | --- | --- | --- |", *rows])


def report(lane: Lane, found: dict[str, Any]) -> None:
    """Say a lane's row, and what was wrong."""
    said = [
        f"{row(lane, found)} {found['seconds_of_the_run']} s",
        *map(str, found.get("found", ())),
    ]
    print("\n".join(said), file=sys.stderr, flush=True)


def run_all(chosen: list[Lane], session: Session, target: Path) -> dict[str, dict[str, Any]]:
    """Run lanes, some beside the others; write down all that was found whenever one ends."""
    results: dict[str, dict[str, Any]] = {}
    one_at_a_time = threading.Lock()

    def go(lanes: list[Lane]) -> None:
        for lane in lanes:
            if session.given_up:
                return
            found = run(lane, session)
            with one_at_a_time:
                results[lane.name] = found
                report(lane, found)
                ended = [results[one.name] for one in chosen if one.name in results]
                target.write_text(json.dumps(ended, indent=1) + "\n", encoding="utf-8")

    beside = threading.Thread(target=go, args=([one for one in chosen if one.beside],), daemon=True)
    try:
        beside.start()
        go([one for one in chosen if not one.beside])
        beside.join()
    except BaseException:
        session.given_up = True
        for leader in tuple(session.alive):
            end_group(leader)
        raise
    return {one.name: results.get(one.name, {"lane": one.name}) for one in chosen}


def main() -> int:
    """Run the lanes, print the table, and leave the JSON where `--json` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", help="a lane's name; may be given again")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("reliability.json"))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background; tests send it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = [lane for lane in LANES if not given.only or lane.name in given.only]
    with tempfile.TemporaryDirectory(prefix="reliability-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # some tests become another user, who has to get at theirs
        results = run_all(chosen, Session(Path(name), given.workers), given.json)
    print(table([row(lane, results[lane.name]) for lane in chosen]))
    return 0 if all(complete(lane, results[lane.name]) for lane in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
