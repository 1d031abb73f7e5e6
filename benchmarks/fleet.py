"""A rollback on 1, 10 and 50 endpoints, against the slowest single one of them.

The servers are fakes in a process of their own: they obey reloads over real gRPC and load nothing, each after
a time of its own, so that fifty of them fit on one machine. What is measured is the rollback itself, in
this process: resolving, pre-flight, both reloads and every wait, models.config and history.
"""

from __future__ import annotations

import multiprocessing
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import servingrepo
from benchmarks import timing
from servingrepo.modelconfig import pin
from servingrepo.repository.config import read_own_config, write_config
from servingrepo.servers.states import Endpoint
from servingrepo.testing.exports import write_export
from servingrepo.testing.fake_models import FakeModels
from servingrepo.testing.fake_server import serve_fake

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.api import OpenRepository

SIZES = (1, 10, 50)
MODELS = 300
LIMIT = 1.3
QUICK, SLOW = 0.5, 2.0
"""Seconds that the quickest and the slowest fake take to load."""


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=5)
    with timing.workplace(options.dir) as folder, fakes(max(SIZES)) as endpoints:
        repo, _ = servingrepo.init(folder / "repository")
        for number in (1, 2):
            export = write_export(folder / f"run{number}", offset=float(number))
            repo.promote(export, model="half", smoke=False)
        repo.reload(endpoints=endpoints, wait=60)
        seconds: dict[str, list[float]] = {"slowest": [], **{str(size): [] for size in SIZES}}
        for _ in range(options.rounds):
            # The first of them all is the slowest: every fleet has it.
            seconds["slowest"].append(rollback(repo, endpoints[:1]))
            for size in SIZES:
                seconds[str(size)].append(rollback(repo, endpoints[:size]))
        many_models(repo)
        repo.reload(endpoints=endpoints[:10], wait=60)
        seconds[f"10, {MODELS} models in the config"] = [
            rollback(repo, endpoints[:10]) for _ in range(options.rounds)
        ]
        median = {name: timing.middle(values) for name, values in seconds.items()}
        measured = {
            "rounds": options.rounds,
            "load_seconds": [QUICK, SLOW],
            "median_seconds": median,
            "all_seconds": seconds,
        }
        targets = [
            timing.Target(
                f"endpoints: {size}; times the slowest single one", value / median["slowest"], LIMIT
            )
            for size, value in median.items()
            if size != "slowest"
        ]
        timing.report("fleet", measured, targets, folder=folder)


def many_models(repo: OpenRepository) -> None:
    """Add entries of others to the config: their base paths are not ours to check."""
    config = read_own_config(repo.value)
    for number in range(MODELS - 1):
        config = pin(config, name=f"other-{number}", base_path=f"/else/{number}", versions=[1])
    write_config(repo.value, config)


def rollback(repo: OpenRepository, endpoints: Sequence[Endpoint]) -> float:
    """Roll back on these, and bring everybody up again; return what the rollback took."""
    start = time.perf_counter()
    repo.rollback("half", to=1, mark_bad=False, endpoints=endpoints, wait=60)
    seconds = time.perf_counter() - start
    repo.serve("half@2", endpoints=endpoints, wait=60)
    return seconds


@contextmanager
def fakes(count: int) -> Iterator[list[Endpoint]]:
    """Serve that many fakes in another process; the first is the slowest."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(count, there), daemon=True)
    process.start()
    try:
        yield [Endpoint("127.0.0.1", port) for port in here.recv()]
    finally:
        here.send("done")
        process.join(30)


def serve(count: int, pipe: Any) -> None:
    """Run in the other process until told to end."""
    with ExitStack() as stack:
        ports = []
        for number in range(count):
            load = SLOW - (SLOW - QUICK) * number / max(count - 1, 1)
            client = stack.enter_context(serve_fake(FakeModels(load_seconds=load)))
            ports.append(client.endpoint.port)
        pipe.send(ports)
        pipe.recv()


if __name__ == "__main__":
    main()
