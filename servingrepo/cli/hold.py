"""servingrepo hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import dry_run_option, message_option

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make("hold", examples='servingrepo hold ranker -m "black friday"')
@click.argument("model", metavar="NAME")
@message_option
@dry_run_option
@click.pass_obj
def command(app: App, model: str, message: str, dry_run: bool) -> None:
    """Keep promotions from re-pointing a model: they publish, and say that it is held.

    serve and rollback still work: whoever types them means it.
    """
    event = app.open().hold(model, message=message, dry_run=dry_run)
    dry = "dry run, nothing was changed: " if dry_run else ""
    why = f": {event.why}" if event.why else ""
    app.result(
        event,
        [f"{dry}{model} is held{why}", f"  next  servingrepo release-hold {model}"],
        bare=model,
    )
