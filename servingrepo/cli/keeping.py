"""Options that say what a prune keeps, and where else a policy may come from: servingrepo.toml."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from servingrepo.cli.options import settings_of_model
from servingrepo.repository.retention import Keep, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.cli.app import App

F = TypeVar("F", bound="Callable[..., Any] | click.Command")

KEEP_FIELDS = {
    "last": "keep_last",
    "within": "keep_within",
    "daily": "keep_daily",
    "weekly": "keep_weekly",
    "labelled": "keep_labelled",
}
"""Fields of Keep by the options that fill them."""

_BY_HAND = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def duration(value: Any) -> timedelta:
    """Read a duration such as 30d, as click's type of an option; one that is read already stays.

    Raises:
        click.BadParameter: It is none.
    """
    if isinstance(value, timedelta):
        return value
    try:
        return parse_duration(str(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def keep_options(function: F) -> F:
    """Add the --keep options."""
    count = click.IntRange(min=0)
    options = [
        click.option(
            "--keep-last",
            type=count,
            metavar="N",
            help="Keep the last N good versions of each model.",
        ),
        click.option(
            "--keep-within",
            type=duration,
            metavar="30d",
            help="Keep what was made within this time before the newest version: 12h, 30d, 2w, 1y, 1w3d.",
        ),
        click.option(
            "--keep-daily",
            type=count,
            metavar="N",
            help="Keep the last good version of each of N days (UTC) that have one.",
        ),
        click.option(
            "--keep-weekly",
            type=count,
            metavar="N",
            help="Keep the last good version of each of N ISO weeks that have one.",
        ),
        click.option(
            "--keep-labelled",
            multiple=True,
            metavar="LABEL",
            help="Keep what has such a label or ever had it; '*' for any; repeatable.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def given_by_hand() -> bool:
    """Tell whether a rule was given on the command line or in the environment."""
    ctx = click.get_current_context()
    return any(ctx.get_parameter_source(option) in _BY_HAND for option in KEEP_FIELDS.values())


def policy_of(app: App, model: str, options: dict[str, Any]) -> Keep:
    """Return a model's policy: by hand, then its table in the settings, then the defaults of `prune`."""
    ctx = click.get_current_context()
    of_model = settings_of_model(app, model)
    chosen = {
        field: options.get(option)
        if option not in of_model or ctx.get_parameter_source(option) in _BY_HAND
        else of_model[option]
        for field, option in KEEP_FIELDS.items()
    }
    return _keep(chosen)


def policy_of_settings(app: App, model: str) -> Keep:
    """Return a model's policy as the settings file alone has it: for what runs after a promotion."""
    options = {**app.prune, **settings_of_model(app, model)}
    return _keep({field: options.get(option) for field, option in KEEP_FIELDS.items()})


def _keep(chosen: dict[str, Any]) -> Keep:
    within, labelled = chosen["within"], chosen["labelled"]
    return Keep(
        last=chosen["last"] or 0,
        within=duration(within) if within else None,
        daily=chosen["daily"] or 0,
        weekly=chosen["weekly"] or 0,
        labelled=(labelled,) if isinstance(labelled, str) else tuple(labelled or ()),
    )
