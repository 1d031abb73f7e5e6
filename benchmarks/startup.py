"""How long `--help`, `list` and `show` take, against a bare `python -c pass`; what they must not import.

The target is the issue's: at most ten times the bare interpreter, none of tensorflow, grpc and docker.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks import timing

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 10.0
UNWANTED = ("tensorflow", "grpc", "docker")


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=25)
    with timing.workplace(options.dir) as folder:
        repository = make_repository(folder)
        root: timing.Command = ["--root", repository]
        commands: dict[str, timing.Command] = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "--help": timing.servingrepo("--help"),
            "list": timing.servingrepo(*root, "list"),
            "show NAME": timing.servingrepo(*root, "show", "model-1"),
            "show NAME@N": timing.servingrepo(*root, "show", "model-1@1"),
            "history": timing.servingrepo(*root, "history"),
        }
        runs = timing.in_turns(commands, rounds=options.rounds, folder=folder)
        seconds = {name: timing.median(one) for name, one in runs.items()}
        bare = seconds["python -c pass"]
        ratios = {name: one / bare for name, one in seconds.items()}
        imported = {
            name: unwanted_imports(command, folder=folder)
            for name, command in commands.items()
            if name in {"--help", "list", "show NAME", "show NAME@N"}
        }
        targets = [
            *(timing.Target(f"{name} / python -c pass", ratios[name], LIMIT) for name in imported),
            *(
                timing.Target(f"{name}: imports of {', '.join(UNWANTED)}", len(found), 0)
                for name, found in imported.items()
            ),
        ]
        measured = {
            "rounds": options.rounds,
            "median_seconds": seconds,
            "ratios": ratios,
            "unwanted_imports": imported,
        }
        timing.report("startup", measured, targets, folder=folder)


def make_repository(folder: Path) -> Path:
    """Make a repository of three models with two versions each, as a user would."""
    from servingrepo.testing.exports import write_export

    repository = folder / "repository"
    timing.run(timing.servingrepo("--root", repository, "init"), folder=folder)
    for model in range(1, 4):
        for version in range(1, 3):
            run = write_export(folder / f"run-{model}-{version}", slope=model + version / 10)
            promote: timing.Command = ["promote", run, "--model", f"model-{model}", "--no-smoke"]
            timing.run(timing.servingrepo("--root", repository, *promote), folder=folder)
    return repository


def unwanted_imports(command: timing.Command, *, folder: Path) -> list[str]:
    """Return which of the unwanted packages a command really imports, by `-X importtime`."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *map(str, command)],
        cwd=folder,
        env=timing.environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return [name for name in UNWANTED if name in modules]


if __name__ == "__main__":
    main()
