"""Runs every lane and prints the table that docs/reliability.md holds.

A lane is a program that prints one JSON object, or a run of pytest whose tests say what they tried
(tests/crash/counting.py). Each object has `lane`, `violations`, and numbers: in `counts`, or beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.counting import JSON_TO

PROJECT = Path(__file__).resolve().parents[2]
HEADER = ("lane", "tried", "violations", "run by")


@dataclass(frozen=True)
class Lane:
    """One row: what is run for it, and which of its numbers are shown, in which words.

    `tests` are arguments of pytest; `module` is a program with its own. Rows that come out of one run of pytest
    name the same tests, and it is run once.
    """

    name: str
    shown: tuple[tuple[str, str], ...]
    tests: tuple[str, ...] = ()
    module: tuple[str, ...] = ()

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
    ),
    Lane(
        "long-life", (("runs", "{} promotions into one model"),), module=("tests.crash.long_life",)
    ),
    Lane(
        "mutations",
        (("removed", "{} fsyncs, locks and flags removed"), ("noticed", "{} noticed by a test")),
        module=("tests.crash.mutations",),
    ),
)
"""Every row of the table. A new lane is one more."""


def run(lane: Lane, *, workers: int, done: dict[tuple[str, ...], list[dict[str, Any]]]) -> Any:
    """Run a lane, or take what the same run of pytest has told already; return its JSON object."""
    key = lane.tests or lane.module
    if key not in done:
        done[key] = _by_pytest(lane, workers) if lane.tests else _by_program(lane)
    for found in done[key]:
        if found.get("lane") == lane.name:
            return found
    return {"lane": lane.name, "counts": {}, "violations": 0}


def _by_pytest(lane: Lane, workers: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="servingrepo-reliability-") as folder:
        target = Path(folder) / "counts.json"
        arguments = [one.strip("'") for one in lane.tests]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", str(workers), *arguments],
            cwd=PROJECT,
            env={**os.environ, JSON_TO: str(target)},
            stdout=sys.stderr,
            check=False,
        )
        found: list[dict[str, Any]] = json.loads(target.read_text()) if target.exists() else []
        return found


def _by_program(lane: Lane) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", *lane.module],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return []
    return [found]


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
    return not found.get("violations") and all(numbers.get(key) for key, _ in lane.shown)


def row(lane: Lane, found: dict[str, Any]) -> str:
    """Return a lane's row of the table."""
    cells = (lane.name, tried(lane, found), str(found.get("violations", "?")), lane.command)
    return f"| {' | '.join(cells)} |"


def table(rows: list[str]) -> str:
    """Return the whole table, in Markdown."""
    return "\n".join([f"| {' | '.join(HEADER)} |", "| --- | --- | --- | --- |", *rows])


def main() -> int:
    """Run the lanes, print the table, and leave the JSON where `--json` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", help="a lane's name; may be given again")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to leave all that the lanes said")
    given = parser.parse_args()
    chosen = [lane for lane in LANES if not given.only or lane.name in given.only]
    done: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    results = []
    for lane in chosen:
        begun = time.monotonic()
        found = run(lane, workers=given.workers, done=done)
        results.append((lane, found))
        print(f"{lane.name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    print(table([row(lane, found) for lane, found in results]))
    if given.json:
        given.json.write_text(json.dumps([found for _, found in results], indent=1) + "\n")
    return 0 if all(complete(lane, found) for lane, found in results) else 1


if __name__ == "__main__":
    sys.exit(main())
