"""How long commands take in a repository whose history has 100,000 lines.

The target is the issue's: under 0.3 s beyond what a bare interpreter takes, for each whole process.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import msgspec

import servingrepo
from benchmarks import timing
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

LINES = 100_000
LIMIT_SECONDS = 0.3


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=9)
    with timing.workplace(options.dir) as folder:
        root = folder / "repository"
        size = fill(root, folder)
        at: timing.Command = ["--root", root]
        runs: dict[str, list[timing.Run]] = {}
        for number in range(options.rounds + 1):
            run = write_export(folder / "new" / "saved_model", slope=float(number)).parent
            commands: dict[str, timing.Command] = {
                "bare": [sys.executable, "-c", "pass"],
                "history": timing.servingrepo(*at, "history"),
                "history of a model": timing.servingrepo(*at, "history", "m"),
                "list": timing.servingrepo(*at, "list"),
                "status": timing.servingrepo(*at, "status"),
                "promote": timing.servingrepo(*at, "promote", run, "--model", "m", "--no-smoke"),
                "rollback": timing.servingrepo(*at, "rollback", "m"),
            }
            for what, command in commands.items():
                runs.setdefault(what, []).append(timing.run(command, folder=folder))
        # The first of each filled the caches.
        seconds = {what: timing.median(one[1:]) for what, one in runs.items()}
        measured = {
            "lines": LINES,
            "history_mib": size / timing.MIB,
            "rounds": options.rounds,
            "median_seconds": seconds,
            "median_processor_seconds": {
                what: timing.middle([run.processor for run in one[1:]])
                for what, one in runs.items()
            },
        }
        targets = [
            timing.Target(f"{what}, seconds", value - seconds["bare"], LIMIT_SECONDS)
            for what, value in seconds.items()
            if what not in {"bare", "promote"}
        ]
        timing.report("history", measured, targets, folder=folder)


def fill(root: Path, folder: Path) -> int:
    """Make a repository of two models with two versions, and put a long past before their events."""
    repo, _ = servingrepo.init(root)
    for number in range(2):
        for model in ("m", "other"):
            run = folder / f"{model}{number}"
            write_export(run / "saved_model", slope=float(number), offset=float(len(model)))
            repo.promote(run, model=model, smoke=False, message="nightly")
    path = repo.value.layout.history
    recent, template = path.read_bytes(), next(repo.history())
    with path.open("wb") as stream:
        for number in range(LINES):
            model = ("m", "other")[number % 2]
            old = msgspec.structs.replace(template, id=f"{template.id}{number}", model=model)
            stream.write(msgspec.json.encode(old) + b"\n")
        stream.write(recent)
    shutil.rmtree(folder / "m0")
    return path.stat().st_size


if __name__ == "__main__":
    main()
