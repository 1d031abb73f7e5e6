"""Hooks: the user's own commands. Before a change they can stop it; after it they can inform others.

Each command gets a JSON object on stdin: before a change its dry run, after it its result or error. Hooks run outside
the repository's lock, so they may call servingrepo themselves.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from servingrepo.errors import HookFailed, ServingRepoError
from servingrepo.fleet.options import LiveOptions
from servingrepo.fleet.rules import Hooks
from servingrepo.masking import mask_text
from servingrepo.repository.records import SCHEMA

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

__all__ = ["HookResult", "Hooked", "Hooks", "between_hooks", "hooked", "run_command"]

O = TypeVar("O", bound=LiveOptions)  # noqa: E741 - options
T = TypeVar("T", bound=msgspec.Struct)

_SAID_LINES = 5


class HookResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a command, which is shown without secrets. `trouble` is empty if it succeeded."""

    when: str
    command: str
    trouble: str = ""


class Hooked:
    """A change between its hooks. `results` has the results of the commands."""

    def __init__(self) -> None:
        self.results: tuple[HookResult, ...] = ()
        self.done: msgspec.Struct | None = None

    def tell(self, done: T) -> T:
        """Keep the result of the change for the commands after it, and return it."""
        self.done = done
        return done


@contextmanager
def between_hooks(
    options: LiveOptions, action: str, foresee: Callable[[], msgspec.Struct]
) -> Iterator[Hooked]:
    """Run the hooks of a change around the block that makes it; a dry run runs none.

    The block passes its result to `Hooked.tell`.

    Args:
        options: The options of the change.
        action: The name of the change.
        foresee: Returns the result of a dry run. It is called only if there are commands before the change.

    Raises:
        HookFailed: A command before it failed; nothing was changed.
        ServingRepoError: The change failed; the commands after it got the error.
    """
    hooks, hooked = options.hooks, Hooked()
    if hooks is None or options.dry_run:
        yield hooked
        return
    if hooks.before:
        planned = {"ok": True, "result": msgspec.to_builtins(foresee(), str_keys=True)}
        for command in hooks.before:
            result = _run(command, "before", action, planned, hooks.timeout)
            if result.trouble:
                raise HookFailed(
                    f"the command before the {action} failed: {result.command}: {result.trouble}",
                    hint="nothing was changed; correct the problem that it reports, or leave --before out",
                )
            hooked.results += (result,)
    try:
        yield hooked
    except ServingRepoError as error:
        failed = {"ok": False, "error": {"slug": error.slug, "message": error.message}}
        for command in hooks.after:
            result = _run(command, "after", action, failed, hooks.timeout)
            if result.trouble:
                line = (
                    f"the command after the {action} failed too: {result.command}: {result.trouble}"
                )
                error.problems = (*error.problems, line)
        raise
    happened = {"ok": True, "result": msgspec.to_builtins(hooked.done, str_keys=True)}
    hooked.results += tuple(
        _run(one, "after", action, happened, hooks.timeout) for one in hooks.after
    )


def hooked(options: O, action: str, change: Callable[[O], T]) -> T:
    """Make a change between its hooks, and return its result with those of the hooks.

    `change` takes options, which may be those of a dry run. Errors are those of `between_hooks`.
    """
    with between_hooks(options, action, lambda: change(options.rehearsal())) as hooks:
        done = hooks.tell(change(options))
    return msgspec.structs.replace(done, hooks=hooks.results)


def _run(command: str, when: str, action: str, said: dict[str, Any], timeout: float) -> HookResult:
    record = msgspec.json.encode({"schema": SCHEMA, "when": when, "action": action, **said})
    trouble = run_command(command, record, timeout=timeout)
    return HookResult(when=when, command=mask_text(command), trouble=trouble)


def run_command(command: str, record: bytes, *, timeout: float) -> str:
    """Run a shell command with a record on its stdin. Return how it failed; empty if it succeeded."""
    import subprocess  # 2 ms that a change without hooks need not pay

    process = subprocess.Popen(  # nosec B603 # the user's own command: to run it is what was asked for
        ["/bin/sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        # A command may not read its input: communicate() ignores a closed pipe.
        output, _ = process.communicate(record, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"not done after {timeout:.3g} s"
    finally:
        _end(process)
    return _how_it_ended(process.returncode, output)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and all processes that it started, unless it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _how_it_ended(code: int, output: bytes) -> str:
    if code == 0:
        return ""
    lines = output.decode(errors="replace").strip().splitlines()[-_SAID_LINES:]
    said = ": " + " | ".join(lines) if lines else ""
    how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    return how + said
