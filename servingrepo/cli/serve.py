"""servingrepo serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.switches import print_switch
from servingrepo.fleet.options import ServeOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make(
    "serve",
    examples="""
    servingrepo serve ranker@7
    servingrepo serve ranker@latest --endpoint localhost:8500 --wait 30""",
)
@click.argument("reference", metavar="REF")
@takes(options=ServeOptions)
@click.pass_obj
def command(app: App, reference: str, options: ServeOptions) -> None:
    """Serve a version: pin it in models.config.

    With --endpoint, servers load the new version beside the old one, models.config changes when the new one answers,
    and servers drop the old one last. If that does not work within --wait seconds, everything is put back. NAME alone
    means its latest good version.
    """
    from servingrepo.verbs.serve import serve

    done = serve(app.open().value, reference, options)
    print_switch(app, done, bare=done.served_after)
