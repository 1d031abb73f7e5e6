"""servingrepo list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.app import App, pinned, sized, table, versions_shown
from servingrepo.cli.command import command as make
from servingrepo.cli.unreadable import refuse_unreadable

if TYPE_CHECKING:
    from servingrepo.repository.listing import ModelRow


@make("list", examples="servingrepo list")
@click.pass_obj
def command(app: App) -> None:
    """List the models: what is served, which versions there are, labels, bad versions, holds."""
    repo = app.open()
    rows = repo.list()
    unknown = any(row.unknown for row in rows)
    if not rows and not app.json and not app.quiet:
        app.note("no models yet; next: servingrepo promote RUN --model NAME")
        return
    if unknown and app.json:
        refuse_unreadable(repo.value, {"models": rows})
    app.result(
        rows,
        table(
            ["MODEL", "SERVED", "VERSIONS", "LABELS", "BAD", "HELD", "FOREIGN", "TRASH"],
            [
                [
                    row.model,
                    "?" if row.unknown else row.served if row.served is not None else "-",
                    versions_shown(row.versions),
                    "?" if row.unknown else _labels(row),
                    pinned(row.bad),
                    "held" if row.held else "-",
                    pinned(row.foreign),
                    f"{versions_shown(row.trash)} ({sized(row.trash_size)})" if row.trash else "-",
                ]
                for row in rows
            ],
        ),
        bare="\n".join(row.model for row in rows) if rows else None,
    )
    if unknown:
        refuse_unreadable(repo.value, {"models": rows})


def _labels(row: ModelRow) -> str:
    return ", ".join(f"{label}={at}" for label, at in sorted(row.labels.items())) or "-"
