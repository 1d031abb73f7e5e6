"""Kinds of values on the command line: how click takes them, and what they are read into for a verb."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servingrepo.errors import UsageError
from servingrepo.texts import refuse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from servingrepo.options import Option

    HeaderType = click.ParamType[tuple[str, str]]
    GateType = click.ParamType[Any]
else:
    HeaderType = GateType = click.ParamType  # takes no type argument before click 8.3


class LocalPath(click.Path):
    """A path; a URL is refused before click makes a path of it, in which `//` is `/`."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path, if it is as the options of click.Path say."""
        self.refuse_url(value, param, ctx)
        return super().convert(value, param, ctx)

    def refuse_url(self, value: Any, param: Any, ctx: Any) -> None:
        """Refuse a URL, as a mistake of the option that it was given for."""
        try:
            refuse_url(value, "path")
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


class RunPath(LocalPath):
    """A path that is not looked at while the command line is read: its file system may hang."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the path as it is."""
        self.refuse_url(value, param, ctx)
        return self.coerce_path_result(value)


class Header(HeaderType):
    """NAME=VALUE. In the environment one per line, since values have spaces in them."""

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
            # What was given may be a secret: it is not shown.
            self.fail("a header is NAME=VALUE, and one has no '='", param, ctx)
        return name.strip(), text.strip()


class GateText(GateType):
    """A gate, as servingrepo.runs.gates reads it."""

    name = "gate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it; what cannot be read is a mistake of the command line or the settings file."""
        from servingrepo.runs.gates import parse_gate

        if not isinstance(value, str):
            return value
        try:
            return parse_gate(value)
        except UsageError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)


def duration(value: Any) -> timedelta:
    """Read a duration such as 30d, as click's type of an option; one that is read already stays.

    Raises:
        click.BadParameter: It is none.
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
    "cases": _file,
    "pem": lambda _: click.Path(path_type=Path),
    "run path": _run_path,
    "folder": _run_path,
    "header": lambda _: Header(),
    "gate": lambda _: GateText(),
    "duration": lambda _: duration,
    "count": lambda meaning: click.IntRange(min=int(meaning.least or 0)),
    "seconds": lambda meaning: click.FloatRange(min=meaning.least),
}
"""Click's type for each kind that a field's default does not say."""


def _cases(files: Iterable[Path]) -> tuple[Any, ...]:
    from servingrepo.smoke import load_cases

    return tuple(case for file in files for case in load_cases(Path(file)))


def _server_version(text: str | None) -> tuple[int, int] | None:
    from servingrepo.servers.engines.server_versions import parse_server_version

    return parse_server_version(text) if text else None


def _version(text: str | None) -> int | None:
    from servingrepo.modelconfig.names import parse_version

    return parse_version(text) if text is not None else None


READERS: dict[str, Callable[[Any], Any]] = {
    "cases": _cases,
    "gate": lambda gates: tuple(dict.fromkeys(map(GateText(), gates))),
    "server version": _server_version,
    "version": _version,
}
"""What is made of a value of each kind when all that was given is known."""
