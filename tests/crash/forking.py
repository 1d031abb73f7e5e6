"""A process that has imported the command line and forks a child for each command: no start-up to wait for.

Run as a program it reads one JSON array per line, `[number, arguments, environment, output file]`, runs the real
command line in a forked child whose stdout and stderr go to the file, and answers with the number and the child's
wait status. A SIGKILL ends the child exactly as it ends a fresh interpreter.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

LAZY = (
    *("tarfile", "servingrepo.api", "servingrepo.cli.config", "servingrepo.cli.hold"),
    *("servingrepo.cli.label", "servingrepo.cli.mark_bad", "servingrepo.cli.promote"),
    *("servingrepo.cli.prune", "servingrepo.cli.recover", "servingrepo.cli.release_hold"),
    *("servingrepo.cli.restore", "servingrepo.cli.rollback", "servingrepo.cli.serve"),
    *("servingrepo.cli.unserve", "servingrepo.repository.marks"),
    *("servingrepo.repository.config_write", "servingrepo.repository.verification"),
    *("servingrepo.verbs.label", "servingrepo.verbs.promote", "servingrepo.verbs.prune"),
    *("servingrepo.verbs.rollback", "servingrepo.verbs.serve", "servingrepo.verbs.unserve"),
    *("servingrepo.runs.archives", "servingrepo.servers.engines.choice"),
    *("servingrepo.servers.engines.docker_reaping", "servingrepo.smoke"),
)
"""Modules that commands import when they are called."""


class Forking:
    """The near side: starts the process and asks it to run commands."""

    def __init__(self, log: Path, *, before: tuple[str, ...] = ()) -> None:
        self.log = log
        self.asked = 0
        self.process = subprocess.Popen(
            [*before, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """Run one command; return its exit code (negative: the signal that ended it) and its output.

        A test that ran out of time did not wait for its answer: that one is passed over.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.asked += 1
        log = self.log.with_name(f"{self.log.name}-{self.asked}")
        log.write_bytes(b"")
        request = [self.asked, arguments, env or {}, str(log)]
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answered = 0
        while answered != self.asked:
            answered, status = map(int, self.process.stdout.readline().split())
        said = log.read_text()
        log.unlink()
        return os.waitstatus_to_exitcode(status), said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def serve() -> None:
    """Run the far side until stdin ends."""
    from servingrepo.cli.main import run

    for name in LAZY:
        import_module(name)
    gc.collect()
    gc.freeze()  # a child that collects garbage would copy every page
    for line in sys.stdin:
        number, arguments, environment, log = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                output = os.open(log, os.O_WRONLY | os.O_APPEND)
                for descriptor in (1, 2):
                    os.dup2(output, descriptor)
                os.environ.update(environment)
                # Whoever starts the tests in the background has SIGINT ignored, and we inherit that.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                code = run(arguments)
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:  # noqa: BLE001 - a fork must not fall into its parent's loop
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{number} {status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
