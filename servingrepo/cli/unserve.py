"""servingrepo unserve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import dry_run_option, endpoint_option, message_option, wait_option
from servingrepo.cli.roll_out import hook_options, rules_options
from servingrepo.cli.switches import switch_lines, tell_hooks

if TYPE_CHECKING:
    from servingrepo.cli.app import App
    from servingrepo.rollout.hooks import Hooks
    from servingrepo.rollout.rules import Rules
    from servingrepo.serving.states import Endpoint


@make(
    "unserve",
    examples="""
    servingrepo unserve ranker -m "retired"
    servingrepo unserve ranker --endpoint localhost:8500""",
)
@click.argument("model", metavar="NAME")
@endpoint_option
@wait_option
@rules_options
@hook_options
@message_option
@dry_run_option
@click.pass_obj
def command(
    app: App,
    model: str,
    endpoints: tuple[Endpoint, ...],
    wait: float,
    rules: Rules | None,
    hooks: Hooks | None,
    message: str,
    dry_run: bool,
) -> None:
    """Serve no version of a model: take it out of models.config. Its versions stay on disk."""
    done = app.open().unserve(
        model,
        endpoints=endpoints,
        wait=wait,
        rules=rules,
        hooks=hooks,
        message=message,
        dry_run=dry_run,
    )
    tell_hooks(app, done.hooks)
    app.result(done, switch_lines(done), bare="")
