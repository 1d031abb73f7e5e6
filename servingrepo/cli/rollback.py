"""servingrepo rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.switches import print_switch
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
    """Go back to the version that was served before, by the history. This moves a pointer and no data.

    It skips versions that are missing or marked bad. Labels of the version that clients leave move along. With
    --endpoint, servers load the older version beside the newer one, models.config changes when the older one answers,
    and servers drop the newer one last. If that fails, everything is put back.
    """
    from servingrepo.verbs.rollback import rollback

    done = rollback(app.open().value, model, options)
    print_switch(app, done, bare=done.served_after)
