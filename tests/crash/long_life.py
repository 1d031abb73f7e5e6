"""Thousands of promotions into one model with old versions pruned: nothing grows that should not.

    python -m tests.crash.long_life --promotions 10000 [--keep 5]

prints one JSON object: numbers, history, disk use, and how long a promotion took at the start and at the end, by the
clock and in processor time, which other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import servingrepo
from servingrepo.repository.repository import published_versions
from servingrepo.repository.retention import Keep
from servingrepo.testing.exports import write_export
from tests.crash.races import broken_chain
from tests.crash.state import broken_promises

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository

ROLLBACK_EVERY = 25
EMPTY_EVERY = 10
PROTECTED = 3
"""The served version, what a rollback goes to, and a bad one that was just left, stay beside those that are kept."""
_WINDOWS = 20


def live(folder: Path, *, promotions: int, keep: int) -> dict[str, Any]:
    """Promote, go back now and then, prune and empty the trash; return what was measured and what was wrong."""
    repo, _ = servingrepo.init(folder / "repository")
    run = folder / "run"
    seconds: list[float] = []
    processor: list[float] = []
    wrong: list[str] = []
    disk_use: list[int] = []
    for number in range(1, promotions + 1):
        write_export(run / "saved_model", slope=float(number), offset=1.0)
        start, busy = time.perf_counter(), time.process_time()
        done = repo.promote(run, model="m", smoke=False, message=f"night {number}")
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
        if done.version != number:
            wrong.append(f"promotion {number} got the number {done.version}")
        repo.prune("m", keep=Keep(last=keep), empty_trash=number % EMPTY_EVERY == 0)
        if number % ROLLBACK_EVERY == 0:
            repo.rollback("m")
        if number % max(1, promotions // _WINDOWS) == 0:
            disk_use.append(used(repo.root) - repo.value.layout.history.stat().st_size)
    events = list(repo.history("m"))
    wrong += broken_chain(events)
    if [event.version for event in events if event.action == "promote"] != [
        *range(1, promotions + 1)
    ]:
        wrong.append("history does not have every promotion once, in order")
    wrong += broken_promises(repo.root, history_before=b"")
    if len(published_versions(repo.value, "m")) > keep + PROTECTED:
        wrong.append(f"more than {keep} versions and those that are needed are left")
    window = max(1, promotions // _WINDOWS)
    asked = {name: timed(ask) for name, ask in questions(repo).items()}
    return {
        "lane": "long-life",
        "runs": promotions,
        "violations": len(wrong),
        "keep": keep,
        "bad_marks": len(repo.list()[0].bad),
        "history_lines": len(events),
        "history_bytes": repo.value.layout.history.stat().st_size,
        "disk_use_bytes_without_history": disk_use,
        "promote_ms": _ends(seconds, window),
        "promote_processor_ms": _ends(processor, window),
        "ask_ms": asked,
        "found": wrong[:50],
    }


def _ends(seconds: list[float], window: int) -> dict[str, float]:
    """Return the medians of the first and the last window, in milliseconds."""
    ends = {"first": seconds[:window], "last": seconds[-window:]}
    return {name: round(1000 * statistics.median(some), 2) for name, some in ends.items()}


def questions(repo: OpenRepository) -> dict[str, Any]:
    return {
        "history -n 20": lambda: list(repo.history(limit=20)),
        "list": repo.list,
        "status": repo.status,
        "rollback --dry-run": lambda: repo.rollback("m", dry_run=True),
    }


def timed(ask: Any) -> float:
    def once() -> float:
        start = time.perf_counter()
        ask()
        return 1000 * (time.perf_counter() - start)

    return round(statistics.median(once() for _ in range(5)), 2)


def used(folder: Path) -> int:
    """Return the bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--promotions", type=int, default=10_000)
    parser.add_argument("--keep", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="where to work")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="servingrepo-life-", dir=options.dir))
    try:
        facts = live(folder, promotions=options.promotions, keep=options.keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(facts, indent=1))
    sys.exit(1 if facts["violations"] else 0)


if __name__ == "__main__":
    main()
