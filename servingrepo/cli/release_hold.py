"""servingrepo release-hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import dry_run_option, message_option

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make("release-hold", examples="servingrepo release-hold ranker")
@click.argument("model", metavar="NAME")
@message_option
@dry_run_option
@click.pass_obj
def command(app: App, model: str, message: str, dry_run: bool) -> None:
    """Let promotions re-point a model again. What was published meanwhile is served by `serve`."""
    event = app.open().release_hold(model, message=message, dry_run=dry_run)
    dry = "dry run, nothing was changed: " if dry_run else ""
    app.result(
        event,
        [f"{dry}{model} is not held", f"  next  servingrepo serve {model}@latest"],
        bare=model,
    )
