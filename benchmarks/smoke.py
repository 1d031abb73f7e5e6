"""How long a whole `promote` with its smoke test takes, and `smoke PATH`, against starting the bare server.

There is no target. Most of the server's start is loading TensorFlow; what is above it is
servingrepo's own work and the requests.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import timing

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_SECONDS = 120.0


def main() -> None:
    from servingrepo.testing.exports import write_export

    options = timing.arguments(__doc__.partition("\n")[0], rounds=5)
    with timing.workplace(options.dir) as folder:
        root = folder / "repository"
        timing.run(timing.servingrepo("--root", root, "init"), folder=folder)
        config = write_config(
            folder / "models.config", write_export(folder / "server" / "1").parent
        )
        runs: dict[str, list[float]] = {
            name: [] for name in ("server until it listens", "promote", "smoke PATH")
        }
        for number in range(options.rounds + 1):
            run = write_export(folder / f"run-{number}", slope=number)
            promote: timing.Command = ["--root", root, "promote", run, "--model", "model"]
            runs["server until it listens"].append(start_server(config, folder=folder))
            for name, command in {
                "promote": timing.servingrepo(*promote),
                "smoke PATH": timing.servingrepo("smoke", f"{run}/"),
            }.items():
                runs[name].append(timing.run(command, folder=folder).seconds)
        seconds = {name: timing.middle(one[1:]) for name, one in runs.items()}
        bare = seconds["server until it listens"]
        measured = {
            "rounds": options.rounds,
            "median_seconds": seconds,
            "ratios": {name: one / bare for name, one in seconds.items()},
        }
        timing.report("smoke", measured, [], folder=folder)


def write_config(file: Path, base_path: Path) -> Path:
    """Write a config that serves version 1 of one model."""
    from servingrepo.modelconfig import EMPTY, pin, render

    file.write_text(render(pin(EMPTY, name="model", base_path=str(base_path), versions=[1])))
    return file


def start_server(config: Path, *, folder: Path) -> float:
    """Start the embedded server, return the seconds until it listens with its model loaded, and stop it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    module = "servingrepo.embedded"
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", module, f"--port={port}", f"--model_config_file={config}"],
        cwd=folder,
        env=timing.environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while not listens(port):
                if process.poll() is not None or time.perf_counter() - start > PATIENCE_SECONDS:
                    raise SystemExit(f"the embedded server did not start: {process.returncode}")
                time.sleep(0.01)
            return time.perf_counter() - start
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
