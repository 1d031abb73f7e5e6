"""servingrepo mark-bad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.verbs.options import MarkOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make(
    "mark-bad",
    examples="""
    servingrepo mark-bad ranker@7 -m "trained on broken labels"
    servingrepo mark-bad ranker@7 --clear""",
)
@click.argument("reference", metavar="REF")
@takes(options=MarkOptions)
@click.pass_obj
def command(app: App, reference: str, options: MarkOptions) -> None:
    """Mark a version bad: it is not served, rolled back to, or promoted again under another number.

    What is served now stays served, even if it is this version: rollback changes that.
    """
    from servingrepo.verbs.mark import mark_bad

    repo = app.open()
    event = mark_bad(repo.value, reference, options)
    name = f"{event.model}@{event.version}"
    dry = "dry run, nothing was changed: " if options.dry_run else ""
    served = repo.show(event.model).served
    lines = [f"{dry}{name} is {'no longer ' if options.clear else ''}marked bad"]
    if not options.clear and served == event.version:
        lines.append(f"  it is what is served now; next  servingrepo rollback {event.model}")
    app.result(event, lines, bare=name)
