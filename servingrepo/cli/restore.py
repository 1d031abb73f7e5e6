"""servingrepo restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from servingrepo.cli.app import App, Bar
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.texts import sized
from servingrepo.verbs.options import RestoreOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.pruning import Restored


@make(
    "restore",
    examples="""
    servingrepo restore ranker@7
    servingrepo restore ranker@7 --dry-run""",
)
@click.argument("reference", metavar="NAME@N")
@takes(options=RestoreOptions)
@click.pass_obj
def command(app: App, reference: str, options: RestoreOptions) -> None:
    """Bring a pruned version back from the trash under its number. This does not serve it.

    Every byte is compared with the version's record first. A damaged version stays in the trash.
    """
    from servingrepo.verbs.restore import restore

    repo = app.open()
    size = repo.size(reference)
    with Bar(app, f"verifying {reference}", lambda: size) as bar:
        options = msgspec.structs.replace(options, progress=bar.advance)
        done = restore(repo.value, reference, options)
    app.result(done, _lines(done), bare=done.version)


def _lines(done: Restored) -> Iterator[str]:
    name = f"{done.model}@{done.version}"
    if done.dry_run:
        yield f"dry run, nothing was changed: would restore {name}"
    else:
        yield f"{name} restored"
    yield f"  verified  {done.files} files, {sized(done.size)}; every byte as in its record"
    yield f"  path      {done.path}"
    if done.bad is not None:
        yield f"  bad       it is marked bad: {done.bad}"
        yield f"  next      servingrepo mark-bad {name} --clear, if it is to be served"
    else:
        yield f"  next      servingrepo serve {name}, if it is to be served"
