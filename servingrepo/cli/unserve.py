"""servingrepo unserve."""

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
    "unserve",
    examples="""
    servingrepo unserve ranker -m "retired"
    servingrepo unserve ranker --endpoint localhost:8500""",
)
@click.argument("model", metavar="NAME")
@switch_options()
@click.pass_obj
def command(
    app: App,
    model: str,
    **how: Unpack[How],
) -> None:
    """Serve no version of a model: take it out of models.config. Its versions stay on disk."""
    done = app.open().unserve(
        model,
        **how,
    )
    tell_switch(app, done, bare="")
