"""servingrepo hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.verbs.options import ChangeOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make("hold", examples='servingrepo hold ranker -m "black friday"')
@click.argument("model", metavar="NAME")
@takes(options=ChangeOptions)
@click.pass_obj
def command(app: App, model: str, options: ChangeOptions) -> None:
    """Keep promotions from changing what a model serves. They publish, and say that the model is held.

    serve and rollback still work, because people type them on purpose.
    """
    from servingrepo.verbs.mark import hold

    event = hold(app.open().value, model, options)
    dry = "dry run, nothing was changed: " if options.dry_run else ""
    why = f": {event.why}" if event.why else ""
    app.result(
        event,
        [f"{dry}{model} is held{why}", f"  next  servingrepo release-hold {model}"],
        bare=model,
    )
