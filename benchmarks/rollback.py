"""How long `rollback` without endpoints takes in a repository of 200 models with 10 versions each.

The target is the issue's: at most 0.15 s for the whole process. Each timed run rolls back another model.
"""

from __future__ import annotations

import sys
import zlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import servingrepo
from benchmarks import timing
from servingrepo.modelconfig import drop, parse, pin, render
from servingrepo.repository.config import read_own_config, write_config
from servingrepo.repository.records import ModelState, encode
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.repository import Repository

MODELS = 200
VERSIONS = 10
LIMIT_SECONDS = 0.15


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=15)
    with timing.workplace(options.dir) as folder:
        root = folder / "repository"
        fill(root, folder)
        runs: dict[str, list[timing.Run]] = {"bare": [], "rollback": [], "list": []}
        for number in range(options.rounds + 1):
            commands: dict[str, timing.Command] = {
                "bare": [sys.executable, "-c", "pass"],
                "rollback": timing.servingrepo("--root", root, "rollback", name(number)),
                "list": timing.servingrepo("--root", root, "list"),
            }
            for what, command in commands.items():
                runs[what].append(timing.run(command, folder=folder))
        # The first of each filled the caches.
        seconds = {what: timing.median(one[1:]) for what, one in runs.items()}
        measured = {
            "models": MODELS,
            "versions_each": VERSIONS,
            "rounds": options.rounds,
            "median_seconds": seconds,
            "processor_seconds": {
                what: timing.middle([run.processor for run in one[1:]])
                for what, one in runs.items()
            },
            "slowest_rollback_seconds": max(one.seconds for one in runs["rollback"][1:]),
            "rollback_peak_mib": max(one.peak for one in runs["rollback"]) / timing.MIB,
        }
        target = timing.Target("rollback, seconds", seconds["rollback"], LIMIT_SECONDS)
        timing.report("rollback", measured, [target], folder=folder)


def fill(root: Path, folder: Path, *, models: int = MODELS, versions: int = VERSIONS) -> None:
    """Make the repository: one version is really promoted, the others repeat its record, files and line of history.

    Nothing else is synced: to build 50,000 versions the real way takes hours and is not what is measured.
    """
    opened, _ = servingrepo.init(root)
    repo = opened.value
    run = write_export(folder / "run", variables=True, fingerprint=True)
    opened.promote(run, model=name(0), smoke=False, message="nightly")
    sample = _sample(repo)
    for model in map(name, range(models)):
        repo.layout.records(model).mkdir(exist_ok=True)
        repo.layout.staging(model, "").mkdir(parents=True, exist_ok=True)
        state = ModelState(name=model, highest=versions)
        repo.layout.state(model).write_bytes(encode(state))
    with repo.layout.history.open("ab") as history:
        # Every night each model gets a version: the lines of all models lie between each other.
        for version in range(1, versions + 1):
            for number in range(models):
                if (version, number) != (1, 0):
                    history.write(_add(repo, sample, name(number), version))
    write_config(repo, _pinned(repo, models, versions))


def name(number: int) -> str:
    return f"model-{number:03d}"


class Sample(NamedTuple):
    """What the one real promotion left: its record and event as they were written, and the files of its version."""

    record: dict[str, Any]
    event: dict[str, Any]
    directories: tuple[str, ...]
    files: dict[str, bytes]


def _sample(repo: Repository) -> Sample:
    version = repo.layout.version(name(0), 1)
    below = sorted(version.rglob("*"))
    return Sample(
        record=msgspec.json.decode(repo.layout.record(name(0), 1).read_bytes()),
        event=msgspec.json.decode(repo.layout.history.read_bytes()),
        directories=tuple(str(one.relative_to(version)) for one in below if one.is_dir()),
        files={str(one.relative_to(version)): one.read_bytes() for one in below if one.is_file()},
    )


def _add(repo: Repository, sample: Sample, model: str, version: int) -> bytes:
    """Make one version of a model with its record, and return its line of history."""
    target = repo.layout.version(model, version)
    target.mkdir()
    for directory in sample.directories:
        (target / directory).mkdir()
    for path, data in sample.files.items():
        (target / path).write_bytes(data)
    made = datetime.fromisoformat(sample.record["created"]) - timedelta(days=1000 - version)
    time = made.isoformat(timespec="milliseconds")
    about: dict[str, Any] = {
        "txid": f"{made:%Y%m%dT%H%M%SZ}-{zlib.crc32(f'{model}@{version}'.encode()):08x}"
    }
    about |= {"model": model, "version": version, "created": time}
    text = msgspec.json.format(msgspec.json.encode(sample.record | about), indent=1) + b"\n"
    repo.layout.record(model, version).write_bytes(text)
    event = sample.event | {"id": about["txid"], "time": time, "model": model, "version": version}
    event["after"] = [version]
    if version > 1:
        event["before"] = [version - 1]
    return msgspec.json.encode(event) + b"\n"


def _pinned(repo: Repository, models: int, versions: int) -> ModelConfig:
    """Return the config in which every model serves its last version: edits copy it, so to pin each would be slow."""
    config = read_own_config(repo)
    base = repo.base_path(name(0))
    one = render(pin(drop(config, name(0)), name=name(0), base_path=base, versions=[versions]))
    entry = "\n".join(line for line in one.splitlines() if line[:1] not in {"#", "m", "}"})
    every = "\n".join(entry.replace(name(0), name(number)) for number in range(models))
    return parse(f"model_config_list {{\n{every}\n}}\n")


if __name__ == "__main__":
    main()
