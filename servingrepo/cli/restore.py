"""servingrepo restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.app import App, Bar, sized
from servingrepo.cli.command import command as make
from servingrepo.cli.options import dry_run_option, message_option

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
@message_option
@dry_run_option
@click.pass_obj
def command(app: App, reference: str, message: str, dry_run: bool) -> None:
    """Bring a pruned version back from the trash under its number. It is not served by that.

    Every byte is compared with the version's record first; what is damaged stays in the trash.
    """
    repo = app.open()
    size = repo.size(reference)  # and it is there at all
    with Bar(app, f"verifying {reference}", lambda: size) as bar:
        done = repo.restore(reference, message=message, dry_run=dry_run, progress=bar.advance)
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
