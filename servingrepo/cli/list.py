"""servingrepo list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.app import App, pinned, table, versions_shown
from servingrepo.cli.command import command as make
from servingrepo.cli.unreadable import refuse_unreadable
from servingrepo.texts import sized

if TYPE_CHECKING:
    from servingrepo.repository.listing import ModelRow


@make("list", examples="servingrepo list")
@click.pass_obj
def command(app: App) -> None:
    """List the models with their served version, all versions, labels, bad versions and holds.

    The list also has models that only models.config or the disk has. Versions that servingrepo did not publish are
    UNMANAGED. A model with a base path elsewhere is unmanaged as a whole. What is unmanaged is shown and never
    changed. -q lists only the models of which servingrepo has published versions.
    """
    repo = app.open()
    rows = repo.list()
    unknown = any(row.unknown for row in rows)
    if not rows and not app.json and not app.quiet:
        app.note("no models yet; next: servingrepo promote RUN --model NAME")
        return
    notes = ["NOTES"] if any(map(_note, rows)) else []
    ours = [row.model for row in rows if row.ours]
    if unknown and app.json:
        refuse_unreadable(repo.value, {"models": rows})
    app.result(
        rows,
        table(
            ["MODEL", "SERVED", "VERSIONS", "LABELS", "BAD", "HELD", "UNMANAGED", "TRASH", *notes],
            [
                [
                    row.model,
                    _served(row),
                    versions_shown(row.versions),
                    "?" if row.unknown else _labels(row),
                    pinned(row.bad),
                    "held" if row.held else "-",
                    pinned(row.foreign),
                    f"{versions_shown(row.trash)} ({sized(row.trash_size)})" if row.trash else "-",
                    *([_note(row)] if notes else []),
                ]
                for row in rows
            ],
        ),
        bare="\n".join(ours) if ours else None,
    )
    if not ours:
        app.note(
            "servingrepo published no version of them, and never touches them; next: servingrepo adopt --all takes "
            "them under management where they lie, or says why it cannot"
        )
    if unknown:
        refuse_unreadable(repo.value, {"models": rows})


def _served(row: ModelRow) -> object:
    """Return the served version; "?" if it depends on a disk that servingrepo does not read."""
    if row.unknown or (row.elsewhere and not row.pinned):
        return "?"
    return row.served if row.served is not None else "-"


def _note(row: ModelRow) -> str:
    """Say why servingrepo does not manage a model."""
    if row.elsewhere:
        return f"unmanaged: base path {row.elsewhere}"
    return "" if row.ours else "unmanaged"


def _labels(row: ModelRow) -> str:
    return ", ".join(f"{label}={at}" for label, at in sorted(row.labels.items())) or "-"
