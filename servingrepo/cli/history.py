"""servingrepo history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.app import App, pinned, table
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.options import Option

if TYPE_CHECKING:
    from servingrepo.repository.history import Event


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """How many events are shown."""

    limit: Annotated[
        int,
        Option(help="Show the last N events.", flags="-n --limit", least=1, shows=("default",)),
    ] = 20


@make(
    "history",
    examples="""
    servingrepo history
    servingrepo history ranker -n 50""",
)
@click.argument("model", metavar="[NAME]", required=False)
@takes(shown=Shown)
@click.pass_obj
def command(app: App, model: str | None, shown: Shown) -> None:
    """Show who changed what, when, why, from which run and with which proof, oldest first."""
    events = list(app.open().history(model, limit=shown.limit))
    if not events and not app.json:
        app.note("nothing has happened yet")
        return
    app.result(
        events,
        table(
            ["TIME", "WHO", "WHAT", "MODEL", "SERVED", "PROOF", "WHY", "RUN"],
            [
                [
                    event.time[:19],
                    f"{event.user}@{event.host}",
                    event.action + (" (recovered)" if event.recovered else ""),
                    event.model + _versions(event),
                    _move(event),
                    event.proof or "-",
                    _why(event),
                    (event.run or "-") + (f" (git {event.code})" if event.code else ""),
                ]
                for event in events
            ],
        ),
        bare="\n".join(event.id for event in events) or None,
    )


def _versions(event: Event) -> str:
    moved = event.versions or ((event.version,) if event.version is not None else ())
    return f"@{', '.join(map(str, moved))}" if moved else ""


def _why(event: Event) -> str:
    """Return the reason of an event, what it allowed, and the verdicts of its stages."""
    return (
        "; ".join(
            [
                *([event.why] if event.why else []),
                *(f"allowed: {one}" for one in event.allowed),
                *(f"stage {number}: {one}" for number, one in enumerate(event.stages, start=1)),
            ]
        )
        or "-"
    )


def _move(event: Event) -> str:
    moved = pinned(event.after)
    if event.before != event.after:
        moved = f"{pinned(event.before)} > {moved}"
    was, now = event.labels_before, event.labels_after
    for label in sorted({*was, *now}):
        if was.get(label) != now.get(label):
            moved += f"; {label} {was.get(label, '-')} > {now.get(label, '-')}"
    return moved
