"""Options that several commands share, each with its environment twin."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from servingrepo.cli.app import App

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any] | click.Command")

_GIVEN = (
    click.core.ParameterSource.COMMANDLINE,
    click.core.ParameterSource.ENVIRONMENT,
    click.core.ParameterSource.DEFAULT_MAP,
)


def _store(name: str, ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Put a value into the App, if it was given: the group and the command have the same options."""
    if param.name is not None and ctx.get_parameter_source(param.name) in _GIVEN:
        setattr(ctx.ensure_object(App), name, value)


def shared_options(function: F) -> F:
    """Add --root, --json, -q, -v and --lock-wait, before the command's name or behind it."""
    options = [
        click.option(
            "--root",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path(),
            envvar="SERVINGREPO_ROOT",
            show_envvar=True,
            is_eager=True,
            expose_value=False,
            callback=partial(_store, "root"),
            help="The repository. [default: the current directory]",
        ),
        click.option(
            "--json",
            is_flag=True,
            envvar="SERVINGREPO_JSON",
            expose_value=False,
            callback=partial(_store, "json"),
            help="Print exactly one JSON object on stdout, for errors too.",
        ),
        click.option(
            "-q",
            "--quiet",
            "quiet",
            flag_value=-1,
            type=int,
            default=None,
            envvar="SERVINGREPO_QUIET",
            expose_value=False,
            callback=partial(_store, "verbosity"),
            help="Print the bare result alone (promote: the version number).",
        ),
        click.option(
            "-v",
            "--verbose",
            "verbose",
            flag_value=1,
            type=int,
            default=None,
            envvar="SERVINGREPO_VERBOSE",
            expose_value=False,
            callback=partial(_store, "verbosity"),
            help="Print more.",
        ),
        click.option(
            "--lock-wait",
            type=click.FloatRange(min=0),
            default=30.0,
            envvar="SERVINGREPO_LOCK_WAIT",
            expose_value=False,
            callback=partial(_store, "lock_wait"),
            metavar="SECONDS",
            help="How long to wait for the repository's lock. [default: 30]",
        ),
        click.option(
            "--failpoints",
            envvar="SERVINGREPO_FAILPOINTS",
            hidden=True,
            expose_value=False,
            callback=partial(_store, "faults"),
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def endpoint_option(function: F) -> F:
    """Add --endpoint, repeatable."""
    return click.option(
        "--endpoint",
        "endpoints",
        multiple=True,
        envvar="SERVINGREPO_ENDPOINT",
        show_envvar=True,
        metavar="HOST:PORT",
        help="gRPC endpoint of a live TensorFlow Serving; may be repeated.",
    )(function)


def wait_option(function: F) -> F:
    """Add --wait: how long live servers may take."""
    return click.option(
        "--wait",
        type=click.FloatRange(min=0.1),
        default=60.0,
        envvar="SERVINGREPO_WAIT",
        show_default=True,
        metavar="SECONDS",
        help="How long endpoints may take; then everything is put back.",
    )(function)


def message_option(function: F) -> F:
    """Add -m: why."""
    return click.option(
        "-m", "--message", default="", metavar="TEXT", help="Why: kept in the history."
    )(function)


def dry_run_option(function: F) -> F:
    """Add --dry-run."""
    return click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")(
        function
    )


def engine_options(function: F) -> F:
    """Add --engine, --timeout and --case: how to smoke-test."""
    options = [
        click.option(
            "--engine",
            type=click.Choice(["auto", "embedded"]),
            default="auto",
            envvar="SERVINGREPO_ENGINE",
            show_default=True,
            help="What serves during the smoke test; auto means embedded for now.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1),
            default=120.0,
            envvar="SERVINGREPO_TIMEOUT",
            show_default=True,
            metavar="SECONDS",
            help="How long the smoke test may take, server start included.",
        ),
        click.option(
            "--case",
            "cases",
            multiple=True,
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            metavar="FILE",
            help="Requests to send instead of made-up ones: JSON as for TF Serving's REST; repeatable.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function
