"""The settings of one call, and its output: no other file of the command line prints."""

from __future__ import annotations

import os
import re
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import msgspec
from click.core import ParameterSource

from servingrepo.errors import NoRepository, StorageFailed
from servingrepo.texts import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from servingrepo.api import OpenRepository
    from servingrepo.errors import ServingRepoError
    from servingrepo.storage.disk import Disk

SCHEMA = 1

_NAMED_ENDPOINTS = re.compile(
    r"--endpoint (?!HOST:PORT)[^\s;,]+:[^\s;,]+(?: --endpoint [^\s;,]+:[^\s;,]+)*"
)
"""All --endpoint options of one command in a text; not the words HOST:PORT of a hint."""


class StdoutFailed(StorageFailed):
    """Standard output takes no more, such as a file on a full disk. So it cannot hold the result."""


@dataclass
class App:
    """The settings of one call. Options fill it, before or behind the command's name."""

    root: Path = field(default_factory=Path)
    json: bool = False
    verbosity: int = 0
    lock_wait: float = 30.0
    faults: str = ""
    command: str = ""
    settings: Path | None = None
    settings_named: bool = False
    """Whether the caller named the settings file. Otherwise this program found it in a directory."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    prune: dict[str, Any] = field(default_factory=dict)
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, ParameterSource] = field(default_factory=dict)
    connection: dict[str, str] = field(default_factory=dict)
    """The connection options of this call's command line: a command to type next must repeat them."""

    def take(self, name: str, value: Any, source: ParameterSource) -> None:
        """Set a value, unless a firmer source has set it: command line, then environment, then settings file."""
        firm = [
            ParameterSource.DEFAULT_MAP,
            ParameterSource.ENVIRONMENT,
            ParameterSource.COMMANDLINE,
        ]
        if source in firm:
            before = self.sources.get(name, ParameterSource.DEFAULT_MAP)
            if firm.index(source) >= firm.index(before):
                self.sources[name] = source
                setattr(self, name, value)

    def repeat(self, text: str) -> str:
        """Return a text whose commands have the connection options of this call's command line."""
        options = "".join(f" {one}" for one in self.connection.values())

        def with_options(found: re.Match[str]) -> str:
            said = text.startswith(options, found.end())
            return found[0] if said else found[0] + options

        return _NAMED_ENDPOINTS.sub(with_options, text) if options else text

    @property
    def quiet(self) -> bool:
        """Whether the output is the bare result alone."""
        return self.verbosity < 0

    def name_settings(self) -> None:
        """Print with -v the name of the settings file; --json always has it."""
        if self.verbosity > 0:
            self.note(
                f"settings: {self.settings.absolute() if self.settings is not None else 'none'}"
            )

    def open(self) -> OpenRepository:
        """Open the repository that `--root` names."""
        import servingrepo

        try:
            return servingrepo.open(self.root, disk=self.disk(), lock_wait=self.lock_wait)
        except NoRepository as error:
            named = {
                ParameterSource.ENVIRONMENT: "SERVINGREPO_ROOT",
                ParameterSource.DEFAULT_MAP: str(self.settings),
            }.get(self.sources.get("root", ParameterSource.DEFAULT))
            if named is not None:
                error.hint = f"{named} says so; {error.hint}"
            raise

    def disk(self) -> Disk:
        """Return the disk to write through. It has faults if a test asks for them."""
        from servingrepo.storage.disk import Disk
        from servingrepo.storage.faults import Faults

        return Disk(faults=Faults.parse(self.faults)) if self.faults else Disk()

    def result(self, value: Any, lines: Iterable[str] = (), *, bare: object = None) -> None:
        """Print a command's result on stdout: one JSON object, the bare value, or lines for people."""
        if self.json:
            self.document({"ok": True, "result": msgspec.to_builtins(value, str_keys=True)})
        elif self.quiet:
            if bare is not None:
                _print("\n".join(map(printable, str(bare).split("\n"))))
        else:
            for line in lines:
                _print(printable(self.repeat(line)))

    def document(self, body: dict[str, Any]) -> None:
        """Print the one JSON object of a call."""
        whole = {
            "schema": SCHEMA,
            "command": self.command,
            "settings": str(self.settings.absolute()) if self.settings is not None else None,
            **body,
        }
        try:
            _print(msgspec.json.encode(whole))
        except UnicodeEncodeError:
            import json

            # A path that is not UTF-8 has surrogates (PEP 383), and JSON can hold these only as escapes.
            _print(json.dumps(whole, separators=(",", ":")))

    def note(self, line: str) -> None:
        """Print a remark on stderr, unless -q or --json is given."""
        if not self.quiet and not self.json:
            click.echo(printable(line), err=True)

    def warn(self, line: str) -> None:
        """Print a warning on stderr, with -q too; with --json the result has it."""
        if not self.json:
            click.echo(
                _styled("warning: ", fg="yellow") + printable(line),
                err=True,
            )

    def failure(self, error: ServingRepoError) -> None:
        """Print an error: JSON on stdout for scripts, else lines on stderr for people."""
        error.hint = self.repeat(error.hint) if error.hint else error.hint
        if self.json and not isinstance(error, StdoutFailed):
            try:
                self.document({"ok": False, "error": error_document(error)})
            except StdoutFailed:
                pass  # stderr is left
            else:
                return
        click.echo(
            _styled("error: ", fg="red") + printable(error.message),
            err=True,
        )
        for problem in error.problems:
            click.echo("  " + printable(problem), err=True)
        if error.log:
            click.echo("server log, last lines:", err=True)
            for line in error.log.splitlines():
                click.echo("  | " + printable(line), err=True)
        if error.hint:
            click.echo(_styled("hint: ") + printable(error.hint), err=True)


def _styled(word: str, *, fg: str | None = None) -> str:
    """Return a word in bold; plain if NO_COLOR is set (no-color.org). Outside terminals click removes the style."""
    return word if os.environ.get("NO_COLOR") else click.style(word, fg=fg, bold=True)


def _print(text: str | bytes) -> None:
    """Print on stdout.

    Raises:
        StdoutFailed: stdout takes no more. The command itself has finished by then.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise StdoutFailed(
            f"cannot write the result to stdout: {error.strerror}",
            hint="the command has finished: servingrepo history shows what it changed",
        ) from error


def discard_stdout() -> None:
    """Discard the rest of stdout's buffer: otherwise the interpreter would fail to flush it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def error_document(error: ServingRepoError) -> dict[str, Any]:
    """Return an error as a value for `--json`."""
    return {
        "slug": error.slug,
        "exit_code": error.exit_code,
        "retryable": error.retryable,
        "message": error.message,
        "hint": error.hint,
        "problems": list(error.problems),
        "log": error.log,
        "details": msgspec.to_builtins(error.details, str_keys=True),
    }


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of an aligned table, with numbers to the right."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [
        max(len(head), *(len(row[i]) for row in cells)) if cells else len(head)
        for i, head in enumerate(heads)
    ]
    right = [bool(rows) and all(isinstance(row[i], int) for row in rows) for i in range(len(heads))]
    for row in [list(heads), *cells]:
        aligned = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        yield "  ".join(aligned).rstrip()


def pinned(versions: Sequence[int]) -> str:
    """Return pinned versions as text."""
    return ", ".join(map(str, versions)) or "-"


def versions_shown(versions: Sequence[int]) -> str:
    """Return versions as text: a few completely, many as their number and ends."""
    most = 8
    if len(versions) <= most:
        return pinned(versions)
    return f"{len(versions)}: {versions[0]} … {pinned(versions[-3:])}"


class Bar:
    """A progress bar on stderr. It shows only on a terminal, without -q and --json.

    `measure` returns how many bytes there are. It is called only if the bar shows, because it reads files itself.
    Without it, `expect` gives the number later.
    """

    def __init__(self, app: App, label: str, measure: Callable[[], int] | None = None) -> None:
        self._label = printable(label)
        self._watched = not app.json and not app.quiet and sys.stderr.isatty()
        self._bar: Any = None
        self._left = self._step = self._undrawn = 0
        self._lock = threading.Lock()
        if self._watched and measure is not None:
            self.expect(measure())

    @property
    def shows(self) -> bool:
        """Whether it shows once it knows how many bytes there are."""
        return bool(self._watched)

    def expect(self, total: int) -> None:
        """Show the bar for a number of bytes; without bytes it does not show."""
        if self._watched and total > 0:
            self._left = total
            self._step = max(1, total // 200)
            self._bar = click.progressbar(length=total, label=self._label, file=sys.stderr)
            self._bar.__enter__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)

    def advance(self, size: int) -> None:
        """Count bytes that are done. Any thread may call this."""
        if self._bar is not None:
            with self._lock:
                self._undrawn += size
                # click limits how often it draws, but before 8.5 it left out the end.
                if self._undrawn >= min(self._step, self._left):
                    self._bar.update(self._undrawn)
                    self._left -= self._undrawn
                    self._undrawn = 0
