"""servingrepo reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.app import App, pinned
from servingrepo.cli.command import command as make
from servingrepo.cli.options import dry_run_option, endpoint_option, wait_option
from servingrepo.cli.roll_out import reload_option
from servingrepo.errors import UsageError

if TYPE_CHECKING:
    from servingrepo.servers.states import Endpoint


@make(
    "reload",
    examples="""
    servingrepo reload --endpoint localhost:8500
    servingrepo reload --endpoint localhost:8500 --wait 120""",
)
@endpoint_option
@wait_option
@reload_option
@dry_run_option
@click.pass_obj
def command(
    app: App, endpoints: tuple[Endpoint, ...], wait: float, reload_by: str, dry_run: bool
) -> None:
    """Make servers follow models.config, and wait until each pinned version answers.

    TensorFlow Serving answers OK to a reload before new versions are loaded; this does not. Nothing changes
    on disk. A config that a server would refuse or hang on is not sent.
    """
    if not endpoints:
        raise UsageError("no endpoint to reload", hint="give --endpoint HOST:PORT")
    done = app.open().reload(
        endpoints=endpoints, wait=wait, poll=reload_by == "poll", dry_run=dry_run
    )
    lines = [f"{one.endpoint}: {one.outcome}" for one in done.endpoints]
    if dry_run:
        lines = [f"dry run: would send models.config to {', '.join(map(str, endpoints))}"]
    lines.extend(f"  {name}  {pinned(versions)}" for name, versions in sorted(done.models.items()))
    app.result(done, lines, bare="ok")
