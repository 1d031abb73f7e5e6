"""Kinds of values on the command line: click's type for each kind, and the reader that makes a verb's value of it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servingrepo.errors import UsageError
from servingrepo.texts import refuse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from servingrepo.options import Option

    HeaderType = click.ParamType[tuple[str, str]]
    GateType = click.ParamType[Any]
else:
    HeaderType = GateType = click.ParamType  # takes no type argument before click 8.3


class LocalPath(click.Path):
    """A path. It refuses a URL before click makes a path of it and so turns `//` into `/`."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path, if it passes the checks of click.Path."""
        self.refuse_url(value, param, ctx)
        return super().convert(value, param, ctx)

    def refuse_url(self, value: Any, param: Any, ctx: Any) -> None:
        """Refuse a URL, with the option's name in the error."""
        try:
            refuse_url(value, "path")
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


class RunPath(LocalPath):
    """A path on a file system that may hang: reading the command line does not touch it."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path as it is."""
        self.refuse_url(value, param, ctx)
        return self.coerce_path_result(value)


class NewFile(LocalPath):
    """A file to write: its directory exists, and in its place is nothing, or a file."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path. A link or a device there is refused: it would be replaced and not written to."""
        path = Path(super().convert(value, param, ctx))
        if not path.parent.is_dir():
            self.fail(f"there is no directory {path.parent}", param, ctx)
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            self.fail(f"{path} is there, and no file that could be replaced", param, ctx)
        return path


class CaseSource(click.Path):
    """A file of cases that exists, or what is no file: MODULE:FUNCTION, or warmup."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return a path, or the text of what is no file."""
        if isinstance(value, str) and not os.path.lexists(value):
            from servingrepo.smoke.files import OWN_WARMUP, CaseCode

            if value == OWN_WARMUP or CaseCode.names(value):
                return value
        return super().convert(value, param, ctx)


class Header(HeaderType):
    """NAME=VALUE. An environment variable has a header on each line, since values may have spaces."""

    name = "header"
    envvar_list_splitter = "\n"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return name and value."""
        if isinstance(value, tuple):
            return value
        name, sign, text = str(value).partition("=")
        if not sign:
            # The text may be a secret, so the message does not have it.
            self.fail("a header must be NAME=VALUE, and this one has no '='", param, ctx)
        return name.strip(), text.strip()


class GateText(GateType):
    """A gate, as servingrepo.runs.gates reads it."""

    name = "gate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a gate. An unreadable one is an error of the command line or the settings file."""
        from servingrepo.runs.gates import parse_gate

        if not isinstance(value, str):
            return value
        try:
            return parse_gate(value)
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


def duration(value: Any) -> timedelta:
    """Read a duration such as 30d, as click's type of an option. A timedelta stays as it is.

    Raises:
        click.BadParameter: The text is no duration.
    """
    from servingrepo.repository.retention import parse_duration

    if isinstance(value, timedelta):
        return value
    try:
        return parse_duration(str(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _file(_: Option) -> click.Path:
    return click.Path(path_type=Path, dir_okay=False, exists=True)


def _run_path(_: Option) -> click.Path:
    return RunPath(path_type=Path)


TYPES: dict[str, Callable[[Option], Any]] = {
    "file": _file,
    "case": lambda _: CaseSource(path_type=Path, dir_okay=False, exists=True),
    "cases": _file,
    "new file": lambda _: NewFile(path_type=Path),
    "pem": lambda _: click.Path(path_type=Path),
    "run path": _run_path,
    "folder": _run_path,
    "header": lambda _: Header(),
    "gate": lambda _: GateText(),
    "duration": lambda _: duration,
    "count": lambda meaning: click.IntRange(min=int(meaning.least or 0)),
    "seconds": lambda meaning: click.FloatRange(min=meaning.least),
}
"""Click's type by kind, for fields whose default does not give the type."""


def _cases(files: Collection[Path]) -> tuple[Any, ...]:
    if not files:  # the usual call need not import what reads them
        return ()
    from servingrepo.smoke.files import load_cases

    return tuple(case for file in files for case in load_cases(Path(file)))


def _server_version(text: str | None) -> tuple[int, int] | None:
    from servingrepo.servers.engines.server_versions import parse_server_version

    return parse_server_version(text) if text else None


def _version(text: str | None) -> int | None:
    from servingrepo.modelconfig.names import parse_version

    return parse_version(text) if text is not None else None


def _share(text: str | float | None) -> float | None:
    from servingrepo.verbs.options import as_share

    return as_share(text)


READERS: dict[str, Callable[[Any], Any]] = {
    "cases": _cases,
    "gate": lambda gates: tuple(dict.fromkeys(map(GateText(), gates))),
    "server version": _server_version,
    "share": _share,
    "version": _version,
}
"""The function that makes a verb's value, by kind. It runs when all values of the call are known."""
