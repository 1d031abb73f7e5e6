"""The value of an option: from the command line, else from the environment, else from the settings file.

In the settings file, the table of the environment or the model comes before the command's own table.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from servingrepo.cli.app import App
from servingrepo.errors import SettingsError

if TYPE_CHECKING:
    from servingrepo.options import Table

BY_HAND = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def chosen(key: str, tables: tuple[Table, ...], *, about: str | None = None) -> Any:
    """Return an option's value.

    Args:
        key: The option's name for click, which is its key in the settings.
        tables: The tables of the settings file that may have it, beside the command's own table.
        about: The model, if it is not the command's subject.
    """
    ctx = click.get_current_context()
    value = ctx.params[key]
    if ctx.get_parameter_source(key) in BY_HAND:
        return value
    if "environments" in tables and "environment" in ctx.params:
        environment = ctx.params["environment"]
        if environment is not None:
            return of_environment(environment).get(key, value)
        if key == "endpoints" and not subject():
            of_models = (table.get(key, ()) for table in ctx.ensure_object(App).models.values())
            return tuple(dict.fromkeys((*value, *(one for each in of_models for one in each))))
    model = subject() if about is None else about
    return of_model(model).get(key, value) if "models" in tables else value


def subject() -> str:
    """Return the model that a command is about; empty if it is about all models, or about a path."""
    given = click.get_current_context().params
    named = given.get("model") or given.get("subject") or given.get("reference") or ""
    return str(named).partition("@")[0]


def of_model(name: str) -> dict[str, Any]:
    """Return a model's table of the settings file, by the options' keys."""
    return click.get_current_context().ensure_object(App).models.get(name, {})


def of_environment(name: str) -> dict[str, Any]:
    """Return an environment's table of the settings file, by the options' keys.

    Raises:
        SettingsError: There is no such table.
    """
    tables = click.get_current_context().ensure_object(App).environments
    if name not in tables:
        listed = ", ".join(sorted(tables)) or "none"
        raise SettingsError(
            f"there is no environment {name}",
            hint=f"add a table [environments.{name}] to servingrepo.toml; it has these: {listed}",
        )
    return tables[name]


def variable_behind(param: click.Parameter, ctx: click.Context) -> str | None:
    """Return the environment variable that gave an option its value; None for another source."""
    names = param.envvar
    if param.name is None or names is None:
        return None
    if ctx.get_parameter_source(param.name) is not ParameterSource.ENVIRONMENT:
        return None
    return next(
        (one for one in ([names] if isinstance(names, str) else names) if os.environ.get(one)), None
    )
