"""Runs on network file systems: a child process reads them, so that a hung file system does not hang the command.

A process that waits for a dead file server cannot end, and the reader of its output waits with it. So the command
goes on in a child. This process never touches the run: it asks the file system again and again for an answer, and
leaves a hung child behind. For a run on local disks there is no child.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.children import die_with
from servingrepo.options import Option
from servingrepo.runs.mounts import ask, hung, network_mount

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["RunPlace", "read_in_a_child"]

_FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_BY_THE_KERNEL = 128
"""The si_code of a signal from the terminal (sigaction(2)), which the child gets as well."""
_OFTEN = 0.5
_LAST_WORDS = 5.0


class RunPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The directory of runs."""

    runs: Annotated[
        Path,
        Option(
            help="The directory that a relative path of a run starts from. [default: the current directory]",
            metavar="DIR",
            kind="folder",
        ),
    ] = Path()


def read_in_a_child(run: Path, *, seconds: float) -> Callable[[], None]:
    """Return at once for a run on local disks; otherwise return in a child, while this process watches.

    The caller calls the returned function when it reads no more from the run. From then on the file system may hang.

    Raises:
        click.exceptions.Exit: In this process: the child has ended, with this exit code.
        StorageHung: In this process: the file system did not answer; the child was killed.
    """
    mount = network_mount(run)
    if mount is None:
        return lambda: None
    still_reads, reads = os.pipe()
    relays = [_Relay(stream.fileno()) for stream in (sys.stdout, sys.stderr) if _is_relayed(stream)]
    here = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        die_with(here)
        os.close(still_reads)
        for relay in relays:
            relay.take()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_FORWARDED, signal.SIGCHLD})
        return lambda: os.close(reads)
    os.close(reads)
    for relay in relays:
        relay.start()
    code = _watch(child, still_reads, run, mount, seconds)
    for relay in relays:
        relay.finish()
    raise click.exceptions.Exit(code)


def _is_relayed(stream: Any) -> bool:
    """Tell whether an output needs a relay.

    The reader of a pipe or file waits until all its writers have closed it, even a child that cannot end. A terminal
    has no such reader.
    """
    return not stream.isatty()


class _Relay:
    """A pipe from the child to one of our outputs."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._out, self._into = os.pipe()
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def take(self) -> None:
        """In the child: write to the pipe instead of the output."""
        os.dup2(self._into, self._number)
        os.close(self._into)
        os.close(self._out)

    def start(self) -> None:
        """In the parent: copy until all writers or the reader are gone."""
        os.close(self._into)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the last bytes of the child."""
        self._thread.join(_LAST_WORDS)

    def _copy(self) -> None:
        try:
            while data := os.read(self._out, 1 << 16):
                while data:
                    data = data[os.write(self._number, data) :]
        except OSError:
            pass  # the reader has closed the output: the child's next write fails, as it would without this pipe
        os.close(self._out)


def _watch(child: int, still_reads: int, run: Path, mount: str, seconds: float) -> int:
    """Return the child's exit code. As long as the child reads from the file system, ask that for an answer.

    Raises:
        StorageHung: The file system did not answer in time.
    """
    asking: int | None = None
    asked = time.monotonic()
    while True:
        _forward(child, timeout=min(_OFTEN, seconds / 4))
        status = _status(child)
        if status is not None:
            break
        now = time.monotonic()
        if asking is not None and _status(asking) is not None:
            asking = None
        if select.select([still_reads], [], [], 0)[0]:
            continue
        if asking is None and now - asked > _OFTEN:
            asking, asked = ask(run), now
        elif asking is not None and now - asked > seconds:
            for one in (child, asking):
                os.kill(one, signal.SIGKILL)
            raise hung(run, mount, seconds)
    if asking is not None:
        os.kill(asking, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _forward(child: int, *, timeout: float) -> None:
    """Wait for a signal or the timeout; pass a signal on to the child, unless the terminal sent it to both."""
    got = signal.sigtimedwait({*_FORWARDED, signal.SIGCHLD}, timeout)
    if got is not None and got.si_signo != signal.SIGCHLD and got.si_code != _BY_THE_KERNEL:
        os.kill(child, got.si_signo)


def _status(process: int) -> int | None:
    """Return the status of a child that has ended; None while it runs."""
    ended, status = os.waitpid(process, os.WNOHANG)
    return status if ended else None
