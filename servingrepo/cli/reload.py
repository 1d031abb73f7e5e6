"""servingrepo reload."""

from __future__ import annotations

import click

from servingrepo.cli.app import App, pinned
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.errors import UsageError
from servingrepo.fleet.options import ReloadOptions


@make(
    "reload",
    examples="""
    servingrepo reload --endpoint localhost:8500
    servingrepo reload --endpoint localhost:8500 --wait 120""",
)
@takes(options=ReloadOptions)
@click.pass_obj
def command(app: App, options: ReloadOptions) -> None:
    """Make servers follow models.config, and wait until each pinned version answers.

    TensorFlow Serving answers OK to a reload before it has loaded new versions. This command waits for them. It
    changes nothing on disk. It does not send a config that a server would refuse or hang on.
    """
    from servingrepo.verbs.reload import reload

    if not options.fleet and not options.poll:
        raise UsageError("no endpoint to reload", hint="give --endpoint HOST:PORT")
    done = reload(app.open().value, options)
    lines = [f"{one.endpoint}: {one.outcome}" for one in done.endpoints]
    if options.dry_run:
        lines = [f"dry run: would send models.config to {', '.join(map(str, options.fleet))}"]
    if not options.fleet:
        lines = [
            "no server was asked: all of them poll models.config, or were started with it, as you say"
        ]
    lines.extend(f"  {name}  {pinned(versions)}" for name, versions in sorted(done.models.items()))
    app.result(done, lines, bare="ok")
