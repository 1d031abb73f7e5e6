"""servingrepo serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import dry_run_option, endpoint_option, message_option, wait_option
from servingrepo.cli.roll_out import hook_options, rules_options, stage_options
from servingrepo.cli.switches import switch_lines, tell_hooks

if TYPE_CHECKING:
    from servingrepo.cli.app import App
    from servingrepo.rollout.hooks import Hooks
    from servingrepo.rollout.rules import Rules
    from servingrepo.serving.states import Endpoint


@make(
    "serve",
    examples="""
    servingrepo serve ranker@7
    servingrepo serve ranker@latest --endpoint localhost:8500 --wait 30""",
)
@click.argument("reference", metavar="REF")
@endpoint_option
@wait_option
@rules_options
@stage_options
@hook_options
@message_option
@dry_run_option
@click.pass_obj
def command(
    app: App,
    reference: str,
    endpoints: tuple[Endpoint, ...],
    wait: float,
    rules: Rules | None,
    hooks: Hooks | None,
    message: str,
    dry_run: bool,
) -> None:
    """Serve a version: pin it in models.config.

    With --endpoint the server first loads the new version beside the old one; models.config changes when the new
    one answers, and the old one is dropped last. If that does not work within --wait seconds, everything is put
    back. NAME alone means its latest good version.
    """
    done = app.open().serve(
        reference,
        endpoints=endpoints,
        wait=wait,
        rules=rules,
        hooks=hooks,
        message=message,
        dry_run=dry_run,
    )
    tell_hooks(app, done.hooks)
    app.result(done, switch_lines(done), bare=done.served_after)
