"""Options of commands, made from the Structs of their verbs: flags, environment variables and settings."""

from __future__ import annotations

import re
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from click.core import ParameterSource

from servingrepo.cli.app import App
from servingrepo.cli.chosen import chosen, of_model, subject
from servingrepo.cli.connections import Connection, Environment, repeat_connection, secured
from servingrepo.cli.flag import Flag
from servingrepo.cli.kinds import READERS, TYPES, LocalPath
from servingrepo.cli.live import BUILDERS, hint_at_source
from servingrepo.cli.settings import read_settings_of_root
from servingrepo.errors import EndpointUnreachable
from servingrepo.options import Field, Option, Section, Several, fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

F = TypeVar("F", bound="Callable[..., Any] | click.Command")


def takes(**structs: type[msgspec.Struct]) -> Callable[[F], F]:
    """Add the options of Structs to a command; its function gets a value of each Struct by these names.

    A command with endpoints or an engine gets the options of connections too.
    """
    fields = [one for struct in structs.values() for one in _flat(struct)]
    keys = {one.key for one in fields}
    fields += fields_of(Environment) if "endpoints" in keys else ()
    fields += fields_of(Connection) if keys & {"endpoints", "engine"} else ()
    keys = {one.key for one in fields}

    def add(function: F) -> F:
        @wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            if "tls" in keys:
                repeat_connection()
            built = {name: struct(**_values(struct)) for name, struct in structs.items()}
            rest = {name: value for name, value in given.items() if name not in keys}
            try:
                return function(*args, **rest, **built)
            except EndpointUnreachable as error:
                remote = str(given.get("engine", "")).startswith(
                    "remote"
                )  # it may be unreachable itself
                if not remote and any(getattr(one, "endpoints", ()) for one in built.values()):
                    hint_at_source(error)
                raise

        decorated: Any = called
        for field in reversed(fields):
            decorated = _option(field)(decorated)
        result: F = decorated
        return result

    return add


def _flat(struct: type[msgspec.Struct], sections: tuple[Section, ...] = ()) -> Iterator[Field]:
    """Yield the options of a Struct, and the options of the Structs in its fields."""
    for field in fields_of(struct, sections):
        if isinstance(field.option, Several):
            yield from _flat(field.option.of, field.option.sections)
        else:
            yield field


def _values(struct: type[msgspec.Struct], sections: tuple[Section, ...] = ()) -> dict[str, Any]:
    """Return the values of a Struct's fields, from the call and the settings."""
    values: dict[str, Any] = {}
    for field in fields_of(struct, sections):
        option = field.option
        if isinstance(option, Several):
            make = BUILDERS[option.of.__name__]
            values[field.name] = make(_values(option.of, option.sections), values)
            continue
        value = chosen(field.key, option.tables)
        if option.choices is not None:
            value = option.choices[value]
        elif option.kind == "gate":  # a model's gates hold beside those of the call
            gates = of_model(subject()).get(field.key, ())
            value = READERS["gate"]((*gates, *click.get_current_context().params[field.key]))
        elif option.kind == "endpoint":
            value = secured(value)
        elif option.kind in READERS:
            value = READERS[option.kind](value)
        values[field.name] = value
    return values


def _option(field: Field) -> Callable[[Any], Any]:
    """Return the click option of a field."""
    option, default = field.option, field.default
    assert isinstance(option, Option)  # nosec B101 # noqa: S101 - _flat yields no others
    more: dict[str, Any] = {"default": default}
    if default is msgspec.NODEFAULT:
        more = {"required": True}
    elif option.choices is not None:
        named = {value: text for text, value in option.choices.items()}
        more = {"type": click.Choice(list(option.choices)), "default": named[default]}
    elif isinstance(default, bool):
        more["is_flag"] = True
    elif isinstance(default, tuple):
        more = {"multiple": True}
    elif isinstance(default, int | float):
        more["type"] = TYPES["count" if isinstance(default, int) else "seconds"](option)
    if option.kind in TYPES:
        more["type"] = TYPES[option.kind](option)
    elif option.kind == "message":
        # The message goes into JSON files: bytes that are not UTF-8 (PEP 383) become escapes.
        more["callback"] = lambda _ctx, _param, text: text.encode(
            "utf-8", "backslashreplace"
        ).decode()
    flags = option.flags.split() or [f"--{field.name.replace('_', '-')}"]
    return click.option(*flags, field.key, cls=Flag, option=option, field=field.name, **more)


def _store(name: str, ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Put a value into the App. The group and the command have the same options, so the firmer source wins."""
    source = ctx.get_parameter_source(param.name) if param.name is not None else None
    if source is not None:
        ctx.ensure_object(App).take(name, value, source)


def _store_root(ctx: click.Context, param: click.Parameter, value: Path) -> None:
    _store("root", ctx, param, value)
    if ctx.parent is not None and ctx.get_parameter_source("root") is ParameterSource.COMMANDLINE:
        read_settings_of_root(ctx)


def env_twins(command: str, params: Iterable[click.Parameter]) -> None:
    """Give each option of a command its environment variable: SERVINGREPO_COMMAND_OPTION.

    click itself would name the variables after our parameters instead of the options.
    """
    for param in params:
        if isinstance(param, click.Option):
            option = max(param.opts, key=len).lstrip("-")
            own = re.sub(r"\W", "_", f"SERVINGREPO {command} {option}").upper()
            shared = [param.envvar] if isinstance(param.envvar, str) else param.envvar or ()
            param.envvar = [own, *shared]


def _shared(*flags: str, option: Option, into: str, **more: Any) -> Callable[[Any], Any]:
    more = {"callback": partial(_store, into), **more}
    return click.option(*flags, cls=Flag, option=option, expose_value=False, **more)


def shared_options(function: F) -> F:
    """Add --root, --lock-wait, -q, -v and --json, before the command's name or behind it."""
    options = [
        _shared(
            "--root",
            option=Option(
                help="The repository. [default: the current directory]",
                env="SERVINGREPO_ROOT",
                shows=("env",),
                tables=("top",),
            ),
            into="root",
            type=LocalPath(path_type=Path, file_okay=False, readable=False),
            default=Path(),
            is_eager=True,
            callback=_store_root,
        ),
        _shared(
            "--lock-wait",
            option=Option(
                help="How long to wait for the repository's lock. [default: 30]",
                metavar="SECONDS",
                env="SERVINGREPO_LOCK_WAIT",
                tables=("top",),
            ),
            into="lock_wait",
            type=click.FloatRange(min=0),
            default=30.0,
        ),
        _shared(
            "-q",
            "--quiet",
            "quiet",
            option=Option(
                help="Print the bare result alone (promote: the version number).",
                section="output",
                env="SERVINGREPO_QUIET",
            ),
            into="verbosity",
            flag_value=-1,
            type=int,
            default=None,
        ),
        _shared(
            "-v",
            "--verbose",
            "verbose",
            option=Option(help="Print more.", section="output", env="SERVINGREPO_VERBOSE"),
            into="verbosity",
            flag_value=1,
            type=int,
            default=None,
        ),
        _shared(
            "--json",
            option=Option(
                help="Print exactly one JSON object on stdout, for errors too.",
                section="output",
                env="SERVINGREPO_JSON",
            ),
            into="json",
            is_flag=True,
        ),
        _shared(
            "--failpoints",
            option=Option(help="For tests: the writes that fail.", env="SERVINGREPO_FAILPOINTS"),
            into="faults",
            hidden=True,
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function
