"""What the benchmarks share: whole processes timed in turns, facts of the machine, one JSON report.

Commands are compared only within one run and in turns (A B C, A B C, …), so that whatever else the machine
does hits all of them alike; medians are reported. The commands run as they do after installation: their
bytecode is compiled, whatever this environment says.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MIB = 1 << 20

Command = list[str | Path]


class Run(NamedTuple):
    """One process: seconds from start to end, seconds of processor time, and its peak memory in bytes."""

    seconds: float
    processor: float
    peak: int


class Target(NamedTuple):
    """What a measurement must not exceed."""

    what: str
    value: float
    limit: float


def servingrepo(*arguments: str | Path) -> Command:
    """Return a call of the installed `servingrepo` script of this interpreter.

    Raises:
        SystemExit: It is not installed.
    """
    script = Path(sys.executable).with_name("servingrepo")
    if not script.exists():
        raise SystemExit(f"{script} is not there: pip install --editable . with {sys.executable}")
    return [script, *arguments]


def run(command: Command, *, folder: Path) -> Run:
    """Run a command to its end, its standard output thrown away.

    Args:
        command: The program and its arguments.
        folder: Where compiled bytecode is kept, and the working directory.

    Raises:
        SystemExit: It failed; the message has what it said.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            text = said.read().decode(errors="replace")
            raise SystemExit(f"{command[0]} {command[1:]} gave {process.returncode}:\n{text}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def environment(folder: Path) -> dict[str, str]:
    """Return this environment without our settings, and with compiled bytecode in a folder of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SERVINGREPO_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def in_turns(commands: Mapping[str, Command], *, rounds: int, folder: Path) -> dict[str, list[Run]]:
    """Run all commands once without counting (caches fill), then `rounds` times in turns."""
    for command in commands.values():
        run(command, folder=folder)
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            runs[name].append(run(command, folder=folder))
    return runs


def median(runs: Sequence[Run]) -> float:
    """Return the median of the seconds."""
    return middle([one.seconds for one in runs])


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def arguments(about: str, *, rounds: int) -> argparse.Namespace:
    """Read the options that every benchmark has: `--rounds` and `--dir`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where to work, on the file system to measure; default: %(default)s",
    )
    return parser.parse_args()


@contextlib.contextmanager
def workplace(parent: Path) -> Iterator[Path]:
    """Give an empty folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="servingrepo-benchmark-", dir=parent) as folder:
        yield Path(folder).resolve()


def report(name: str, measured: dict[str, Any], targets: Sequence[Target], *, folder: Path) -> None:
    """Print the benchmark's one JSON object."""
    whole = {
        "benchmark": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(folder),
        **rounded(measured),
        "targets": [
            {**rounded(target._asdict()), "met": target.value <= target.limit} for target in targets
        ],
        "met": all(target.value <= target.limit for target in targets),
    }
    print(json.dumps(whole, indent=2))


def rounded(value: Any) -> Any:
    """Round all floats to what can be told apart."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def machine(folder: Path) -> dict[str, Any]:
    """Say what this ran on; the load tells how much else ran."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1
        ),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file_system": file_system(folder),
        "load_1min": os.getloadavg()[0],
    }


def file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(where, kind) for where, kind in mounts if folder.is_relative_to(where)]
    return max(above, key=lambda mount: len(mount[0]))[1]
