"""How long commands take, and how much memory, in a repository of 1,000 models with 50 versions each.

The targets are the issue's: the seconds of three commands there, the memory of every command, and growth that is
linear or better, from 100 to 1,000 models and from 10 to 100 versions. The slope tells the growth: what a command
takes beyond its start grows as the number of models or versions to the power of the slope. A slope of 1 is linear.
It goes by the least processor time of all rounds, which other work on the machine changes least.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from benchmarks import timing
from benchmarks.rollback import fill, name
from benchmarks.verify import aside
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

MODELS = 1000
VERSIONS = 50
BY_MODELS = tuple((models, VERSIONS) for models in (100, 300, MODELS))
BY_VERSIONS = tuple((100, versions) for versions in (10, 30, 100))
TINY = (3, 10)
"""What a command takes there, it takes for its start."""
LIMIT_SECONDS = {
    "list": 0.5,
    "status": 1.0,
    "rollback": 0.3,
    "promote --no-smoke": 0.4,
    "prune --keep-last 5 --dry-run": 5.0,
}
LIMIT_MB = 120
LIMIT_SLOPE = 1.1
"""Linear, and a tenth for what is not measured exactly."""

LEAST_SECONDS = 0.02
"""Less than this, beyond the start, is noise: it counts as this."""

Runs = dict[str, list[timing.Run]]


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=5)
    with timing.workplace(options.dir) as folder:
        sizes = sorted({TINY, *BY_MODELS, *BY_VERSIONS})
        runs = {
            size: measured(folder / "x".join(map(str, size)), size, options.rounds)
            for size in sizes
        }
        growth = {
            "models": [grown(runs, BY_MODELS, what) for what in runs[TINY]],
            "versions": [grown(runs, BY_VERSIONS, what) for what in runs[TINY]],
        }
        large = runs[MODELS, VERSIONS]
        peak = {what: max(one.peak for one in each) / 1e6 for what, each in large.items()}
        seconds = {what: timing.median(each) for what, each in large.items()}
        targets = [
            *(
                timing.Target(f"{what}, seconds", seconds[what], limit)
                for what, limit in LIMIT_SECONDS.items()
            ),
            *(timing.Target(f"{what}, MB", one, LIMIT_MB) for what, one in peak.items()),
            *(
                timing.Target(f"{row['command']}, slope by {by}", row["slope"], LIMIT_SLOPE)
                for by, rows in growth.items()
                for row in rows
            ),
        ]
        facts = {
            "models": MODELS,
            "versions_each": VERSIONS,
            "rounds": options.rounds,
            "median_seconds": seconds,
            "median_processor_seconds": {what: processor(each) for what, each in large.items()},
            "peak_mb": peak,
            "growth": growth,
        }
        timing.report("scale", facts, targets, folder=folder)


def measured(folder: Path, size: tuple[int, int], rounds: int) -> Runs:
    """Build a repository of so many models and versions each, and run every command there in turns."""
    folder.mkdir()
    root = folder / "repository"
    # A child's peak is at least what this process has when it starts the child, so another process builds.
    aside(build, root, *size)
    runs: Runs = {}
    for number in range(rounds + 1):
        for what, command in commands(root, folder, size[0], number).items():
            runs.setdefault(what, []).append(timing.run(command, folder=folder))
    # The first of each filled the caches.
    return {what: each[1:] for what, each in runs.items()}


def build(root: Path, models: int, versions: int) -> None:
    fill(root, root.parent, models=models, versions=versions)


def commands(root: Path, folder: Path, models: int, number: int) -> dict[str, timing.Command]:
    """Return the commands of one round; each round changes another model."""
    run = write_export(folder / "new" / "saved_model", slope=float(number)).parent
    shown, back, to = (name((3 * number + one) % models) for one in range(3))
    prune = "prune --keep-last 5 --dry-run"
    every: dict[str, timing.Command] = {
        "list": ["list"],
        "status": ["status"],
        "history": ["history"],
        "show NAME": ["show", shown],
        "verify --quick NAME": ["verify", "--quick", shown],
        prune: [*prune.split()],
        "rollback": ["rollback", back],
        "promote --no-smoke": ["promote", run, "--model", to, "--no-smoke"],
    }
    return {what: timing.servingrepo("--root", root, *one) for what, one in every.items()}


def grown(
    runs: dict[tuple[int, int], Runs], sizes: tuple[tuple[int, int], ...], what: str
) -> dict[str, Any]:
    """Return a row of a growth table: medians by size, and the slope of a line through their logarithms."""
    least = {size: min(one.processor for one in runs[size][what]) for size in (TINY, *sizes)}
    beyond = [max(least[size] - least[TINY], LEAST_SECONDS) for size in sizes]
    numbers = [models * versions for models, versions in sizes]
    slope = statistics.linear_regression([*map(math.log, numbers)], [*map(math.log, beyond)]).slope
    by_size = {f"{models} x {versions}": (models, versions) for models, versions in sizes}
    return {
        "command": what,
        "median_seconds": {size: timing.median(runs[key][what]) for size, key in by_size.items()},
        "median_processor_seconds": {
            size: processor(runs[key][what]) for size, key in by_size.items()
        },
        "slope": slope,
    }


def processor(runs: list[timing.Run]) -> float:
    return timing.middle([one.processor for one in runs])


if __name__ == "__main__":
    main()
