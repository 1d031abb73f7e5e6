"""How long `promote --no-smoke` of one GiB takes, against `cp -r --reflink=never` and `sync`; its peak memory.

The targets are the issue's: at most 1.05 times the copy (64 shards: 1.1 times), under 200 MB; and at most 0.15 s for
an export of some kilobytes, which becomes the next version of a model. Promotion also
hashes every byte, compares every tensor with its checksum and syncs every file. Two exports are tried, of 64
variables in one big shard and in 64 shards. The source is in the page cache for both sides, both write to the same
file system, and what they wrote is deleted between runs, outside of the clock.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from benchmarks import timing

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 30
SHARDS = (1, 64)
LIMITS = {1: 1.05, 64: 1.1}
VARIABLES = 64
LIMIT_MB = 200.0
SMALL_ROUNDS = 15
LIMIT_SMALL_SECONDS = 0.15
BLOCK = 4 * timing.MIB


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=5)
    with timing.workplace(options.dir) as folder:
        by_shards = {
            shards: measure(make_export(folder / f"run-{shards}", shards), options.rounds, folder)
            for shards in SHARDS
        }
        small = measure_small(folder)
        targets = [
            timing.Target(
                "some kilobytes: seconds", timing.median(small["promote"]), LIMIT_SMALL_SECONDS
            )
        ]
        measured: dict[str, object] = {"bytes": SIZE, "pairs": options.rounds}
        measured["some kilobytes"] = {
            "rounds": SMALL_ROUNDS,
            "median_seconds": {what: timing.median(runs) for what, runs in small.items()},
            "processor_seconds": {
                what: timing.middle([one.processor for one in runs]) for what, runs in small.items()
            },
        }
        for shards, pairs in by_shards.items():
            ratios = [promoted.seconds / copied.seconds for promoted, copied in pairs]
            peak = max(promoted.peak for promoted, _ in pairs) / 1e6
            measured[f"{shards} shards"] = {
                "promote_median_seconds": timing.median([promoted for promoted, _ in pairs]),
                "copy_median_seconds": timing.median([copied for _, copied in pairs]),
                "promote_processor_seconds": timing.middle([one.processor for one, _ in pairs]),
                "copy_processor_seconds": timing.middle([one.processor for _, one in pairs]),
                "ratios": sorted(ratios),
                "promote_peak_mb": peak,
            }
            targets += [
                timing.Target(
                    f"{shards} shards: promote / (cp and sync), median of pairs",
                    timing.middle(ratios),
                    LIMITS[shards],
                ),
                timing.Target(f"{shards} shards: peak memory, MB", peak, LIMIT_MB),
            ]
        timing.report("promote", measured, targets, folder=folder)


def measure_small(folder: Path) -> dict[str, list[timing.Run]]:
    """Promote one small export after another as versions of one model, in turns with a bare interpreter."""
    from servingrepo.testing.exports import write_export

    at: timing.Command = ["--root", folder / "small"]
    timing.run(timing.servingrepo(*at, "init"), folder=folder)
    runs: dict[str, list[timing.Run]] = {"bare": [], "--help": [], "promote": []}
    for number in range(SMALL_ROUNDS + 1):
        run = write_export(folder / f"small-{number}", slope=float(number), variables=True)
        promote: timing.Command = ["promote", run, "--model", "model", "--no-smoke"]
        commands: dict[str, timing.Command] = {
            "bare": [sys.executable, "-c", "pass"],
            "--help": timing.servingrepo("--help"),
            "promote": timing.servingrepo(*at, *promote),
        }
        for what, command in commands.items():
            runs[what].append(timing.run(command, folder=folder))
    return {what: each[1:] for what, each in runs.items()}


def measure(export: Path, rounds: int, folder: Path) -> list[tuple[timing.Run, timing.Run]]:
    """Time promotion and copy in pairs, taking turns at who is first; a first pair is not counted."""
    pairs: list[tuple[timing.Run, timing.Run]] = []
    for number in range(rounds + 1):
        if number % 2:
            promoted = time_promote(export, folder)
            copied = time_copy(export, folder)
        else:
            copied = time_copy(export, folder)
            promoted = time_promote(export, folder)
        pairs.append((promoted, copied))
    shutil.rmtree(export)
    return pairs[1:]


def time_promote(export: Path, folder: Path) -> timing.Run:
    """Promote into a new repository."""
    root = folder / "repository"
    timing.run(timing.servingrepo("--root", root, "init"), folder=folder)
    settle(export)
    promote: timing.Command = ["promote", export, "--model", "model", "--no-smoke"]
    done = timing.run(timing.servingrepo("--root", root, *promote), folder=folder)
    shutil.rmtree(root)
    return done


def time_copy(export: Path, folder: Path) -> timing.Run:
    """Copy the way a careful person does it by hand."""
    target = folder / "copy"
    settle(export)
    script = 'cp -r --reflink=never "$1" "$2" && sync'
    done = timing.run(["sh", "-c", script, "sh", export, target], folder=folder)
    shutil.rmtree(target)
    return done


def settle(export: Path) -> None:
    """Bring the source into the page cache, and everything written before to the disk."""
    for file in export.rglob("*"):
        if file.is_file():
            with file.open("rb", buffering=0) as stream:
                while stream.read(BLOCK):
                    pass
    os.sync()


def make_export(path: Path, shards: int) -> Path:
    """Write a loadable SavedModel with 64 variables that are one GiB altogether."""
    from servingrepo.testing.bundles import write_tensors
    from servingrepo.testing.exports import write_export

    write_export(path, variables=True)
    tensors = [("offset", 4), ("slope", 4)]
    tensors += [(f"unused-{number:02}", SIZE // VARIABLES) for number in range(VARIABLES)]
    prefix = path / "variables" / "variables"
    for shard in prefix.parent.iterdir():
        shard.unlink()
    write_tensors(prefix, ((name, os.urandom(size)) for name, size in tensors), num_shards=shards)
    return path


if __name__ == "__main__":
    main()
