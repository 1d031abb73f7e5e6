"""servingrepo recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make("recover", examples="servingrepo recover")
@click.pass_obj
def command(app: App) -> None:
    """Clean up after commands that died: staging directories, intents, unfinished history.

    Every command that writes does this first. It never changes what is served.
    """
    done = app.open().recover()
    lines = [
        f"{one.model}{f'@{one.version}' if one.version is not None else ''}: {one.command} died; {one.outcome}"
        for one in done
    ]
    app.result(done, lines or ["nothing to recover"], bare=len(done))
