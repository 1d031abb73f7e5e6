"""servingrepo.toml: defaults for options. Options and the environment come before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from servingrepo.cli.app import App
from servingrepo.cli.flag import Flag
from servingrepo.cli.settings_file import read_found, read_named
from servingrepo.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.options import Table

FILE_NAME = "servingrepo.toml"


def read_settings(ctx: click.Context, _param: click.Parameter, given: Path | None) -> None:
    """Make the settings file the defaults of all options.

    Raises:
        SettingsError: Others may have written it, it is not TOML, or it has settings that no command knows; the error
            lists all of them.
    """
    app = ctx.ensure_object(App)
    if given is not None:
        app.settings_named = True
        _take(ctx, given, read_named(given))
        return
    for place in (Path(FILE_NAME), app.root / FILE_NAME):
        data = read_found(place)
        if data is not None:
            _take(ctx, place, data)
            return


def _take(ctx: click.Context, place: Path, data: bytes) -> None:
    app = ctx.ensure_object(App)
    found = _defaults(ctx, place, data)
    app.settings = place
    ctx.default_map = found
    if "root" in found:
        app.take("root", Path(found["root"]), click.core.ParameterSource.DEFAULT_MAP)


def read_settings_of_root(ctx: click.Context) -> None:
    """Read the settings file of a root that stands behind the command's name, unless a file was read already."""
    app = ctx.ensure_object(App)
    if app.settings is not None:
        return
    place = app.root / FILE_NAME
    data = read_found(place)
    if data is not None:
        found = _defaults(ctx, place, data)
        app.settings = place
        lock_wait = found.get("lock_wait")
        for name in ctx.command_path.split()[1:]:
            found = found.get(name, {})
        ctx.default_map = found
        if lock_wait is not None:
            app.take("lock_wait", float(lock_wait), click.core.ParameterSource.DEFAULT_MAP)


def _defaults(ctx: click.Context, place: Path, text: bytes) -> dict[str, Any]:
    import tomllib  # most calls find no file

    try:
        data = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{place} is not TOML: {error}",
            hint="configs/servingrepo.toml in the project is a sample",
        ) from error
    return defaults(ctx.find_root(), place, data)


def defaults(ctx: click.Context, place: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Return click's default map: values by option, and a table for each command.

    Args:
        ctx: The context of the whole command line.
        place: The settings file: relative paths in it start from its directory.
        data: The content of the file. A key is an option's name, without its dashes.
    """
    problems: list[str] = []
    # promote has all shared options.
    top = {key: value for key, value in data.items() if not isinstance(value, dict)}
    known = _options(ctx, "promote", table="top")
    shared = dict(_values(ctx, known, top, problems, what="no such setting or command"))
    of_file = {"root", *(one.name for one in known.values() if _is_path(one))}
    shared = {
        name: str(place.parent / value) if name in of_file else value
        for name, value in shared.items()
    }
    result: dict[str, Any] = dict(shared)
    tables = {key: value for key, value in data.items() if isinstance(value, dict)}
    app = ctx.ensure_object(App)
    app.models = _tables(ctx, "models", tables.pop("models", {}), problems)
    app.environments = _tables(ctx, "environments", tables.pop("environments", {}), problems)
    for name in _commands(ctx):
        result[name] = dict(shared)
    for key, table in tables.items():
        name = key.replace("_", "-")
        if name not in result or name in shared:
            problems.append(f"{key}: no such setting or command")
            continue
        options = _options(ctx, name)
        for one, value in _values(ctx, options, table, problems, prefix=f"{key}."):
            seen_from_file = _is_path(options[one])
            result[name][one] = str(place.parent / value) if seen_from_file else value
    app.prune = result.get("prune", {})
    if problems:
        raise SettingsError(
            f"{place} has settings that cannot be used",
            problems=problems,
            hint=f"top level: {', '.join(sorted({one.name or '' for one in known.values()}))}; a table per command "
            "with its options; a table models.NAME with the options of the engine, endpoints, probe, require, "
            "allow_op, keep rules and prune; a table environments.NAME with endpoints, wait, allow_down, reload and "
            "server_version",
        )
    return result


def _tables(
    ctx: click.Context, kind: Table, tables: Any, problems: list[str]
) -> dict[str, dict[str, Any]]:
    """Return tables such as `[models.NAME]`, by their name and then by the options' names for click."""
    if not isinstance(tables, dict):
        problems.append(f"{kind}: not a table")
        return {}
    known = {**_options(ctx, "prune", table=kind), **_options(ctx, "promote", table=kind)}
    found: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            problems.append(f"{kind}.{name}: not a table")
            continue
        values = _values(ctx, known, table, problems, prefix=f"{kind}.{name}.")
        found[name] = {
            option: tuple(value) if isinstance(value, list) else value for option, value in values
        }
    return found


def _values(
    ctx: click.Context,
    known: dict[str, click.Option],
    table: dict[str, Any],
    problems: list[str],
    *,
    prefix: str = "",
    what: str = "no such option",
) -> Iterator[tuple[str, Any]]:
    """Yield values with the options' names for click. A value that cannot be used becomes a problem."""
    for key, value in table.items():
        option = known.get(key.replace("-", "_"))
        if option is None or option.name is None:
            problems.append(f"{prefix}{key}: {what}")
            continue
        given = [value] if option.multiple and isinstance(value, str) else value
        try:
            option.type_cast_value(ctx, given)
        except click.BadParameter as error:
            problems.append(f"{prefix}{key}: {error.message}")
        yield option.name, given


def _commands(ctx: click.Context) -> list[str]:
    group = ctx.command
    return group.list_commands(ctx) if isinstance(group, click.Group) else []


def _options(
    ctx: click.Context, name: str, *, table: Table | None = None
) -> dict[str, click.Option]:
    """Return a command's options by their names in the file: the flag's name or the key.

    With a table, return only the options that this table may have.
    """
    group = ctx.command
    command = group.get_command(ctx, name) if isinstance(group, click.Group) else None
    found: dict[str, click.Option] = {}
    for option in command.params if command is not None else ():
        if not isinstance(option, click.Option) or option.name is None:
            continue
        if table is None or (isinstance(option, Flag) and table in option.option.tables):
            found[option.name] = option
            found.update({one.lstrip("-").replace("-", "_"): option for one in option.opts})
    return found


def _is_path(option: click.Option) -> bool:
    """Tell whether the value is a path that starts from the file's directory if it is relative."""
    return isinstance(option, Flag) and option.option.kind in {"pem", "folder"}
