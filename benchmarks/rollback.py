"""How long `rollback` without endpoints takes in a repository of 200 models with 10 versions each.

The target is the issue's: at most 0.15 s for the whole process. Each timed run rolls back another model.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import msgspec

import servingrepo
from benchmarks import timing
from servingrepo.modelconfig import pin
from servingrepo.repository.config import read_own_config, write_config
from servingrepo.repository.records import ModelState, encode
from servingrepo.repository.repository import need_version, new_txid
from servingrepo.repository.transaction import new_event
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
            "slowest_rollback_seconds": max(one.seconds for one in runs["rollback"][1:]),
            "rollback_peak_mib": max(one.peak for one in runs["rollback"]) / timing.MIB,
        }
        target = timing.Target("rollback, seconds", seconds["rollback"], LIMIT_SECONDS)
        timing.report("rollback", measured, [target], folder=folder)


def fill(root: Path, folder: Path) -> None:
    """Make the repository: one version is really promoted, the others repeat its record and files.

    Nothing else is synced: to build 2000 versions the real way takes minutes and is not what is measured.
    """
    opened, _ = servingrepo.init(root)
    repo = opened.value
    opened.promote(write_export(folder / "run"), model=name(0), smoke=False)
    config = read_own_config(repo)
    with repo.layout.history.open("ab") as history:
        for number in range(MODELS):
            history.writelines(fill_model(repo, name(number)))
            config = pin(
                config,
                name=name(number),
                base_path=repo.base_path(name(number)),
                versions=[VERSIONS],
            )
    write_config(repo, config)


def name(number: int) -> str:
    return f"model-{number:03d}"


def fill_model(repo: Repository, model: str) -> Iterator[bytes]:
    """Make all versions of a model that are not there, and yield their lines of history."""
    sample = need_version(repo, name(0), 1)
    published = repo.layout.version(name(0), 1)
    repo.layout.records(model).mkdir(exist_ok=True)
    for version in range(1, VERSIONS + 1):
        target = repo.layout.version(model, version)
        if target.exists():
            continue
        shutil.copytree(published, target)
        txid = f"{new_txid(repo)}-{version}"
        record = msgspec.structs.replace(sample, model=model, version=version, txid=txid)
        repo.layout.record(model, version).write_bytes(encode(record))
        event = new_event(
            repo,
            txid=txid,
            action="promote",
            model=model,
            version=version,
            before=(version - 1,) if version > 1 else (),
            after=(version,),
            run=sample.source.run,
        )
        yield msgspec.json.encode(event) + b"\n"
    repo.layout.state(model).write_bytes(encode(ModelState(name=model, highest=VERSIONS)))


if __name__ == "__main__":
    main()
