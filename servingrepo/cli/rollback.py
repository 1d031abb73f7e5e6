"""servingrepo rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.switches import tell_switch
from servingrepo.fleet.options import RollbackOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make(
    "rollback",
    examples="""
    servingrepo rollback ranker
    servingrepo rollback ranker --endpoint localhost:8500 -m "scores are off"
    servingrepo rollback ranker --to 5 --no-mark-bad""",
)
@click.argument("model", metavar="NAME")
@takes(options=RollbackOptions)
@click.pass_obj
def command(app: App, model: str, options: RollbackOptions) -> None:
    """Go back to the version that was served before, according to history. A pointer moves, no data does.

    Versions that are gone or marked bad are passed over. Labels that pointed at the version that is left move
    along. With --endpoint the older version is loaded beside the newer one, models.config changes when it
    answers, and the newer one is dropped last; otherwise everything is put back.
    """
    from servingrepo.verbs.rollback import rollback

    done = rollback(app.open().value, model, options)
    tell_switch(app, done, bare=done.served_after)
