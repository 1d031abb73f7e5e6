"""servingrepo rollback."""

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
    "rollback",
    examples="""
    servingrepo rollback ranker
    servingrepo rollback ranker --endpoint localhost:8500 -m "scores are off"
    servingrepo rollback ranker --to 5 --no-mark-bad""",
)
@click.argument("model", metavar="NAME")
@click.option(
    "--to",
    metavar="SEL",
    help="Where to: 7, previous, latest or label:stable. [default: previous]",
)
@click.option(
    "--mark-bad/--no-mark-bad",
    default=True,
    help="Mark the version that is left bad, so that no pipeline brings it back. [default: mark-bad]",
)
@switch_options(stages=True)
@click.pass_obj
def command(
    app: App,
    model: str,
    to: str | None,
    mark_bad: bool,
    **how: Unpack[How],
) -> None:
    """Go back to the version that was served before, according to history. A pointer moves, no data does.

    Versions that are gone or marked bad are passed over. Labels that pointed at the version that is left move
    along. With --endpoint the older version is loaded beside the newer one, models.config changes when it
    answers, and the newer one is dropped last; otherwise everything is put back.
    """
    done = app.open().rollback(
        model,
        to=to,
        mark_bad=mark_bad,
        **how,
    )
    tell_switch(app, done, bare=done.served_after)
