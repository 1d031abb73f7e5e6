"""servingrepo list."""

from __future__ import annotations

import click

from servingrepo.cli.app import App, pinned, sized, table, versions_shown
from servingrepo.cli.command import command as make


@make("list", examples="servingrepo list")
@click.pass_obj
def command(app: App) -> None:
    """List the models: what is served, which versions there are, labels, bad versions, holds."""
    rows = app.open().list()
    if not rows and not app.json and not app.quiet:
        app.note("no models yet; next: servingrepo promote RUN --model NAME")
        return
    app.result(
        rows,
        table(
            ["MODEL", "SERVED", "VERSIONS", "LABELS", "BAD", "HELD", "FOREIGN", "TRASH"],
            [
                [
                    row.model,
                    row.served if row.served is not None else "-",
                    versions_shown(row.versions),
                    ", ".join(f"{label}={at}" for label, at in sorted(row.labels.items())) or "-",
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
