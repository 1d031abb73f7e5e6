"""servingrepo serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.roll_out import switch_options
from servingrepo.cli.switches import tell_switch

if TYPE_CHECKING:
    from servingrepo.api.arguments import How
    from servingrepo.cli.app import App


@make(
    "serve",
    examples="""
    servingrepo serve ranker@7
    servingrepo serve ranker@latest --endpoint localhost:8500 --wait 30""",
)
@click.argument("reference", metavar="REF")
@switch_options(stages=True)
@click.pass_obj
def command(
    app: App,
    reference: str,
    **how: Unpack[How],
) -> None:
    """Serve a version: pin it in models.config.

    With --endpoint the server first loads the new version beside the old one; models.config changes when the new
    one answers, and the old one is dropped last. If that does not work within --wait seconds, everything is put
    back. NAME alone means its latest good version.
    """
    done = app.open().serve(
        reference,
        **how,
    )
    tell_switch(app, done, bare=done.served_after)
