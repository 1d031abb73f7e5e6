"""servingrepo report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.reports import write_report
from servingrepo.options import Option
from servingrepo.texts import plural, sized

if TYPE_CHECKING:
    from servingrepo.cli.app import App


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The page that was written."""

    file: str
    size: int
    models: tuple[str, ...]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Where the page is written."""

    output: Annotated[
        Path,
        Option(
            help="The page of HTML to write.", flags="-o --output", metavar="FILE", kind="new file"
        ),
    ]


@make(
    "report",
    examples="""
    servingrepo report ranker -o ranker.html
    servingrepo report -o models.html""",
)
@click.argument("model", metavar="[NAME]", required=False)
@takes(wanted=Wanted)
@click.pass_obj
def command(app: App, model: str | None, wanted: Wanted) -> None:
    """Write the life of a model, or of all models, as one page of HTML that works offline.

    It shows what was live when, rollbacks and why, sizes, metrics over versions, and what each version was proven by.
    """
    from servingrepo.reports.html import as_html
    from servingrepo.reports.life import life_report
    from servingrepo.repository.repository import utc_now

    repo = app.open()
    lives = repo.life(model)
    created = utc_now().isoformat(timespec="seconds")
    root = str(repo.root.absolute())
    data = as_html(life_report(lives, subject=model or root, whole=model is None, created=created))
    write_report(app, wanted.output, data)
    done = Written(
        file=str(wanted.output), size=len(data), models=tuple(one.model.model for one in lives)
    )
    about = plural(len(lives), "model", "models")
    app.result(done, [f"{done.file} written: {about}, {sized(done.size)}"], bare=done.file)
