"""servingrepo status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.app import App, pinned, sized, table, versions_shown
from servingrepo.cli.command import command as make
from servingrepo.cli.options import endpoint_option
from servingrepo.errors import NotConverged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.rollout.status import OnEndpoint, Status
    from servingrepo.serving.states import Endpoint


@make(
    "status",
    examples="""
    servingrepo status
    servingrepo status ranker --endpoint localhost:8500
    servingrepo status --endpoint localhost:8500 --wait 60""",
)
@click.argument("model", metavar="[NAME]", required=False)
@endpoint_option
@click.option(
    "--wait",
    "patience",  # not the `wait` of the settings file, which is how long a change may take
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for disk, config and servers to agree; exit code 68 if they do not in time.",
)
@click.pass_obj
def command(app: App, model: str | None, endpoints: tuple[Endpoint, ...], patience: float) -> None:
    """Show disk, models.config and servers side by side, what differs, and what to type next.

    The exit code is 68 if something differs. Without --endpoint no server is asked, and the output says so.
    """
    status = app.open().status(model, endpoints=endpoints, wait=patience)
    if status.ok or not app.json:
        app.result(status, _lines(status), bare="ok" if status.ok else "drift")
    if not status.ok:
        drift = [line for row in status.models for line in row.drift]
        raise NotConverged(
            "disk, models.config and servers do not agree",
            problems=[*status.problems, *drift],
            hint=f"next: {status.next}",
            details={"status": status},
        )


def _lines(status: Status) -> Iterator[str]:
    asked = [one.endpoint for one in status.models[0].endpoints] if status.models else []
    yield from table(
        ["MODEL", "ON DISK", "CONFIG", "LABELS", *asked, "NOTES"],
        [
            [
                row.model,
                versions_shown(row.on_disk),
                pinned(row.pinned) if row.policy in {"specific", "none"} else row.policy,
                ", ".join(f"{label}={at}" for label, at in sorted(row.labels.items())) or "-",
                *map(_endpoint, row.endpoints),
                "; ".join(
                    [
                        *([f"held: {row.held}"] if row.held else []),
                        *([f"bad: {pinned(row.bad)}"] if row.bad else []),
                        *([f"foreign: {pinned(row.foreign)}"] if row.foreign else []),
                        *(
                            [f"trash: {versions_shown(row.trash)} ({sized(row.trash_size)})"]
                            if row.trash
                            else []
                        ),
                        *([] if row.ours else ["not ours"]),
                    ]
                )
                or "-",
            ]
            for row in status.models
        ],
    )
    yield from (f"running: {one}" for one in status.running)
    yield from (f"note: {one}" for one in status.notes)
    if not asked:
        yield "servers: not asked (no --endpoint)"
    if status.ok:
        yield f"next: {status.next}"


def _endpoint(one: OnEndpoint) -> str:
    if one.error:
        return "no answer"
    others = [f"{status.version} {status.state}" for status in one.others]
    return ", ".join([pinned(one.available), *others])
