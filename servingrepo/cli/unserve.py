"""servingrepo unserve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.switches import print_switch
from servingrepo.fleet.options import LiveOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make(
    "unserve",
    examples="""
    servingrepo unserve ranker -m "retired"
    servingrepo unserve ranker --endpoint localhost:8500""",
)
@click.argument("model", metavar="NAME")
@takes(options=LiveOptions)
@click.pass_obj
def command(app: App, model: str, options: LiveOptions) -> None:
    """Stop serving a model: remove it from models.config. Its versions stay on disk."""
    from servingrepo.verbs.unserve import unserve

    done = unserve(app.open().value, model, options)
    print_switch(app, done, bare="")
