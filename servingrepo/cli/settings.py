"""servingrepo.toml: defaults for options, below options and environment."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servingrepo.cli.app import App
from servingrepo.errors import SettingsError

if TYPE_CHECKING:
    import click

FILE_NAME = "servingrepo.toml"

SHARED = ("root", "lock_wait", "endpoints", "wait", "engine", "timeout")
"""Settings that stand at the top of the file and hold for every command that has them."""


def read_settings(ctx: click.Context, _param: click.Parameter, given: Path | None) -> None:
    """Make the settings file the defaults of all options.

    Raises:
        SettingsError: It is not TOML, or has something in it that no command knows; all of it is listed.
    """
    app = ctx.ensure_object(App)
    places = [given] if given is not None else [Path(FILE_NAME), app.root / FILE_NAME]
    for place in places:
        try:
            text = place.read_bytes()
        except OSError as error:
            if given is not None:
                raise SettingsError(f"cannot read {place}: {error.strerror}") from error
            continue
        ctx.default_map = defaults(ctx, place, text)
        if "root" in ctx.default_map and app.root == Path():
            # A relative root is meant as seen from the file.
            app.root = place.parent / ctx.default_map["root"]
        return


def defaults(ctx: click.Context, place: Path, text: bytes) -> dict[str, Any]:
    """Return click's default map: values by option, and a table for each command."""
    try:
        data = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{place} is not TOML: {error}",
            hint="configs/servingrepo.toml in the project is a sample",
        ) from error
    commands: list[str] = getattr(ctx.command, "list_commands", lambda _ctx: [])(ctx)
    unknown = [
        key
        for key, value in data.items()
        if (key not in commands if isinstance(value, dict) else key not in SHARED)
    ]
    problems = [f"{key}: no such setting or command" for key in unknown]
    shared = {key: value for key, value in data.items() if key in SHARED}
    result: dict[str, Any] = dict(shared)
    for name in commands:
        own = data.get(name, {})
        table = {key.replace("-", "_"): value for key, value in own.items()}
        if table:
            problems.extend(f"{name}.{key}: {why}" for key, why in _unknown(ctx, name, table))
        result[name] = {**shared, **table}
    if problems:
        raise SettingsError(
            f"{place} has settings that mean nothing",
            problems=problems,
            hint=f"top level: {', '.join(SHARED)}; a table per command with its options",
        )
    return result


def _unknown(ctx: click.Context, name: str, table: dict[str, Any]) -> list[tuple[str, str]]:
    command = ctx.command.get_command(ctx, name)  # type: ignore[attr-defined]
    known = {param.name for param in command.params}
    return [(key, "no such option") for key in table if key not in known]
