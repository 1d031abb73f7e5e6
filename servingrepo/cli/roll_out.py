"""Options of the commands that change what live servers serve: rules, stages, hooks, by call or by file."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from servingrepo.cli.connections import keep_together
from servingrepo.cli.options import (
    bystanders,
    dry_run_option,
    endpoint_option,
    firmest,
    message_option,
    settings_of_subject,
    wait_option,
)
from servingrepo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.fleet.rules import Rules

F = TypeVar("F", bound="Callable[..., Any]")


def reload_option(function: F) -> F:
    """Add --reload: how servers come to know models.config. The function gets `reload_by`."""
    return click.option(
        "--reload",
        "reload_by",
        type=click.Choice(["rpc", "poll"]),
        default="rpc",
        envvar="SERVINGREPO_RELOAD",
        help="How servers hear of a change: by RPC, or by polling models.config (with "
        "--model_config_file_poll_wait_seconds). [default: rpc]",
    )(function)


def rules_options(function: F) -> F:
    """Add --allow-down, --probe, --server-version and --reload: how a change goes through endpoints.

    The function gets `rules`, a Rules, for all of them together.
    """

    @wraps(function)
    def gathered(
        *args: Any,
        allow_down: int,
        probes: tuple[Path, ...],
        reload_by: str,
        server_version: str,
        **options: Any,
    ) -> Any:
        rules = None
        chosen = firmest("probes", probes, settings_of_subject(options))
        probes = tuple(map(Path, [chosen] if isinstance(chosen, str) else chosen))
        others = bystanders(options)
        if allow_down or probes or others or reload_by == "poll" or server_version:
            from servingrepo.fleet.rules import Rules
            from servingrepo.servers.engines.server_versions import parse_server_version
            from servingrepo.smoke import load_cases

            rules = Rules(
                allow_down=allow_down,
                poll=reload_by == "poll",
                bystanders=others,
                server=parse_server_version(server_version) if server_version else None,
                probes=tuple(case for file in probes for case in load_cases(file)),
            )
        return function(*args, rules=rules, **options)

    decorated: Any = gathered
    decorated = click.option(
        "--probe",
        "probes",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        metavar="FILE",
        help="Requests that every endpoint must answer with the new version before anything is final: "
        "as --case of smoke; repeatable.",
    )(decorated)
    decorated = click.option(
        "--server-version",
        default="",
        metavar="VERSION",
        help="The endpoints' TensorFlow Serving, such as 2.19.1: a version whose operations it lacks is refused, or "
        "warned of in a rollback.",
    )(decorated)
    decorated = reload_option(decorated)
    result: F = click.option(
        "--allow-down",
        type=click.IntRange(min=0),
        default=0,
        envvar="SERVINGREPO_ALLOW_DOWN",
        metavar="N",
        help="Go on without up to N endpoints that do not answer; they are listed, and follow later. [default: 0]",
    )(decorated)
    return result


def stage_options(function: F) -> F:
    """Add what stages take, --first to --metrics-url. They go into `rules`, below rules_options."""

    @wraps(function)
    def gathered(*args: Any, rules: Rules | None, **options: Any) -> Any:
        given = {name: options.pop(name) for name in ("first", "batch", "watch", "gate")}
        given |= {name: options.pop(name) for name in ("metrics_port", "metrics_url")}
        judging = {name: options.pop(name) for name in ("min_requests", "allow_inconclusive")}
        if any(given.values()):
            import msgspec

            from servingrepo.fleet.rules import STRICT
            from servingrepo.fleet.stages import check_rules

            if not options.get("endpoints"):
                raise UsageError(
                    "a roll-out in stages needs endpoints, and none were given",
                    hint="give --endpoint HOST:PORT or --env NAME, or leave --first, --batch, --watch-for and the "
                    "other options of stages out",
                )
            rules = check_rules(msgspec.structs.replace(rules or STRICT, **given, **judging))
            if rules.metrics_url:
                keep_together([rules.metrics_url], "metrics_url")
        return function(*args, rules=rules, **options)

    decorated: Any = gathered
    for option in reversed(
        [
            click.option(
                "--first",
                multiple=True,
                metavar="HOST:PORT",
                help="Endpoints that get the new version before all others; repeatable.",
            ),
            click.option(
                "--batch",
                default="",
                metavar="N|N%",
                help="How many of the others get it at a time.",
            ),
            click.option(
                "--watch-for",
                "watch",
                type=click.FloatRange(min=0),
                default=0.0,
                metavar="SECONDS",
                help="Watch each stage for so long before the next; if it does badly, everything is put back.",
            ),
            click.option(
                "--gate",
                default="",
                metavar="COMMAND",
                help="A command that must end well after each stage; it gets the stage as JSON on stdin.",
            ),
            click.option(
                "--metrics-port",
                default="",
                metavar="PORT|+N",
                help="Compare errors in the servers' Prometheus metrics: their REST port, or gRPC port + N.",
            ),
            click.option(
                "--metrics-url",
                default="",
                metavar="URL",
                help="The same where a proxy has that page, such as https://{host}:8443: {host} and {port} are each "
                "endpoint's, and --tls-…, --header hold there too.",
            ),
            click.option(
                "--min-requests",
                type=click.IntRange(min=1),
                default=50,
                show_default=True,
                metavar="N",
                help="How many requests a stage and what it is compared with must have before errors are judged; "
                "with fewer the stage is inconclusive, and everything is put back.",
            ),
            click.option(
                "--allow-inconclusive",
                is_flag=True,
                help="Go on after a stage that is inconclusive.",
            ),
        ]
    ):
        decorated = option(decorated)
    result: F = decorated
    return result


def hook_options(function: F) -> F:
    """Add --before and --after: commands of the user's own. The function gets `hooks`."""

    @wraps(function)
    def gathered(
        *args: Any, hooks_before: tuple[str, ...], hooks_after: tuple[str, ...], **options: Any
    ) -> Any:
        hooks = None
        if hooks_before or hooks_after:
            from servingrepo.fleet.hooks import Hooks

            hooks = Hooks(before=hooks_before, after=hooks_after)
        return function(*args, hooks=hooks, **options)

    decorated: Any = gathered
    decorated = click.option(
        "--after",
        "hooks_after",
        multiple=True,
        metavar="COMMAND",
        help="Run this afterwards, with what happened as JSON on stdin; repeatable.",
    )(decorated)
    result: F = click.option(
        "--before",
        "hooks_before",
        multiple=True,
        metavar="COMMAND",
        help="Run this first, with what is to happen as JSON on stdin; if it fails, nothing is changed; repeatable.",
    )(decorated)
    return result


def switch_options(*, stages: bool = False) -> Callable[[F], F]:
    """Add what every change of what is served takes, and the stages in which it may go.

    The function gets the keywords of `servingrepo.api.arguments.How`.
    """
    top_down = (
        endpoint_option,
        wait_option,
        rules_options,
        *((stage_options,) if stages else ()),
        hook_options,
        message_option,
        dry_run_option,
    )

    def add(function: F) -> F:
        for option in reversed(top_down):
            function = option(function)
        return function

    return add
