"""How long `adopt --all` takes for 1,000 models of 10 small versions each, and for weights, against verifying them.

The first target is the issue's: under a minute for the whole process. The second is the speed of `verify --deep`,
which reads and compares the same bytes and tensors. Taking the adoption back is measured beside it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import servingrepo
from benchmarks import timing
from benchmarks.verify import aside, make_large
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

MODELS = 1000
VERSIONS = 10
LIMIT_SECONDS = 60.0
OF_VERIFY = 0.8
LIMIT_MB = 120.0


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=3)
    with timing.workplace(options.dir) as folder:
        small, large = folder / "small", folder / "large"
        fill(small, folder)
        aside(make_large, large / "models" / "model" / "1")
        for root in (small, large):
            servingrepo.init(root)
        many, undone = [], []
        for _ in range(options.rounds):
            many.append(adopted(small, folder))
            undone.append(taken_back(small, folder))
        weights, verified = [], []
        for number in range(options.rounds + 1):
            one = adopted(large, folder)
            verify = timing.servingrepo("--root", large, "verify", "-q", "--deep")
            other = timing.run(verify, folder=folder)
            taken_back(large, folder)
            if number:  # the first fills the caches
                weights.append(one)
                verified.append(other)
        speed = timing.middle(
            [other.seconds / one.seconds for one, other in zip(weights, verified, strict=True)]
        )
        seconds = timing.median(many)
        measured: dict[str, Any] = {
            "models": MODELS,
            "versions_each": VERSIONS,
            "rounds": options.rounds,
            "small_seconds": seconds,
            "small_processor_seconds": timing.middle([one.processor for one in many]),
            "small_peak_mb": max(one.peak for one in many) / 1e6,
            "small_undo_seconds": timing.median(undone),
            "small_undo_processor_seconds": timing.middle([one.processor for one in undone]),
            "one_gib_seconds": timing.median(weights),
            "one_gib_verify_deep_seconds": timing.median(verified),
            "speed_of_verify_deep": speed,
        }
        targets = [
            timing.Target("1,000 models of 10 small versions, seconds", seconds, LIMIT_SECONDS),
            timing.Target("1 GiB: 0.8 x adopt / verify --deep", OF_VERIFY / speed, 1.0),
            timing.Target("peak memory, MB", measured["small_peak_mb"], LIMIT_MB),
        ]
        timing.report("adopt", measured, targets, folder=folder)


def fill(root: Path, folder: Path) -> None:
    """Make the models."""
    sample = write_export(folder / "sample", variables=True)
    for model in range(MODELS):
        for version in range(1, VERSIONS + 1):
            shutil.copytree(sample, root / "models" / f"model-{model:04}" / str(version))


def adopted(root: Path, folder: Path) -> timing.Run:
    """Adopt all models of a root."""
    return timing.run(timing.servingrepo("--root", root, "adopt", "--all"), folder=folder)


def taken_back(root: Path, folder: Path) -> timing.Run:
    """Take that back for the next round."""
    return timing.run(timing.servingrepo("--root", root, "adopt", "--undo"), folder=folder)


if __name__ == "__main__":
    main()
