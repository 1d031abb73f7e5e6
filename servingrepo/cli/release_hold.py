"""servingrepo release-hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.verbs.options import ChangeOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make("release-hold", examples="servingrepo release-hold ranker")
@click.argument("model", metavar="NAME")
@takes(options=ChangeOptions)
@click.pass_obj
def command(app: App, model: str, options: ChangeOptions) -> None:
    """Let promotions change again what a model serves. To serve what was published meanwhile, use `serve`."""
    from servingrepo.verbs.mark import release_hold

    event = release_hold(app.open().value, model, options)
    dry = "dry run, nothing was changed: " if options.dry_run else ""
    app.result(
        event,
        [f"{dry}{model} is not held", f"  next  servingrepo serve {model}@latest"],
        bare=model,
    )
