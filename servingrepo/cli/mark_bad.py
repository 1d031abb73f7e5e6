"""servingrepo mark-bad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import dry_run_option, message_option

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make(
    "mark-bad",
    examples="""
    servingrepo mark-bad ranker@7 -m "trained on broken labels"
    servingrepo mark-bad ranker@7 --clear""",
)
@click.argument("reference", metavar="REF")
@click.option("--clear", is_flag=True, help="Take the mark away.")
@message_option
@dry_run_option
@click.pass_obj
def command(
    app: App,
    reference: str,
    clear: bool,
    message: str,
    dry_run: bool,
) -> None:
    """Mark a version bad: it is not served, rolled back to, or promoted again under another number.

    What is served now stays served, even if it is this version: rollback changes that.
    """
    repo = app.open()
    event = repo.mark_bad(reference, clear=clear, message=message, dry_run=dry_run)
    name = f"{event.model}@{event.version}"
    dry = "dry run, nothing was changed: " if dry_run else ""
    served = repo.show(event.model).served
    lines = [f"{dry}{name} is {'no longer ' if clear else ''}marked bad"]
    if not clear and served == event.version:
        lines.append(f"  it is what is served now; next  servingrepo rollback {event.model}")
    app.result(event, lines, bare=name)
