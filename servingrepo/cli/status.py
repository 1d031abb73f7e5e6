"""servingrepo status."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.app import App, pinned, table, versions_shown
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.unreadable import refuse_unreadable
from servingrepo.errors import NotConverged
from servingrepo.options import Option
from servingrepo.texts import sized
from servingrepo.verbs.options import StatusOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.api import OpenRepository
    from servingrepo.verbs.status import ModelStatus, OnEndpoint, Status

_AGO = re.compile(r" \([^()]* ago\)")

MOST_COLUMNS = 4
"""Endpoints that get a column each."""

MOST_ROWS = 20
"""Models that get a row each, even if nothing is wrong with them."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which models to list, and whether to answer once or to watch."""

    every: Annotated[
        bool,
        Option(
            help=f"List every model. [default: up to {MOST_ROWS} all; of more, those that differ]",
            section="output",
            flags="--all",
            key="all",
        ),
    ] = False
    watch: Annotated[
        bool,
        Option(
            help="Read the status again and again, and print it when it changes; with --json one object per line. "
            "Ends with Ctrl-C, or as --wait says.",
            section="output",
        ),
    ] = False


@make(
    "status",
    examples="""
    servingrepo status
    servingrepo status ranker --endpoint localhost:8500
    servingrepo status --endpoint localhost:8500 --wait 60
    servingrepo status --env prod --watch --json""",
)
@click.argument("model", metavar="[NAME]", required=False)
@takes(options=StatusOptions, asked=Asked)
@click.pass_obj
def command(app: App, model: str | None, options: StatusOptions, asked: Asked) -> None:
    """Show disk, models.config and servers side by side, what differs, and what to type next.

    The exit code is 68 if something differs, 36 if models.config cannot be read. Without --endpoint no server is
    asked, and the output says so. Of more than 20 models only those that differ are listed, and all are counted;
    --json always has all.
    """
    from servingrepo.verbs.status import status as read

    repo = app.open()
    if asked.watch:
        status = _watched(app, repo, model, options, every=asked.every)
        if app.json:
            click.get_current_context().exit(0 if status.ok else NotConverged.exit_code)
    else:
        status = _repeating(app, read(repo.value, model, options))
    if (status.ok or not app.json) and not asked.watch:
        app.result(status, _lines(status, every=asked.every), bare="ok" if status.ok else "drift")
    if status.unknown:
        refuse_unreadable(repo.value, {"status": status})
    if not status.ok:
        # A server that does not answer is the same difference for each model: the output has it once.
        drift = dict.fromkeys(str(one) for row in status.models for one in row.drift)
        raise NotConverged(
            "disk, models.config and servers do not agree",
            problems=[*status.problems, *drift],
            hint=status.next,
            details={"status": status},
        )


def _watched(
    app: App, repo: OpenRepository, model: str | None, options: StatusOptions, *, every: bool
) -> Status:
    """Print every status that differs from the one before; return the last."""
    from servingrepo.verbs.status import watch

    without_end = msgspec.structs.replace(options, wait=options.wait or None)
    last: Status | None = None
    try:
        for seen in watch(repo.value, model, without_end):
            status = _repeating(app, seen)
            if last is None or _without_clock(status) != _without_clock(last):
                if app.json:
                    body = msgspec.to_builtins(status, str_keys=True)
                    app.document({"ok": status.ok, "time": _now(), "result": body})
                else:
                    lines = [*_lines(status, every=every), *_drift(status)]
                    app.result(status, [f"-- {_now()}", *lines])
            last = status
    except KeyboardInterrupt:
        if last is None:
            raise
        click.get_current_context().exit(0 if last.ok else NotConverged.exit_code)
    assert last is not None  # nosec B101 # noqa: S101 - watch yields at least one
    return last


def _repeating(app: App, status: Status) -> Status:
    """Return a status whose next command repeats the connection options of this call."""
    return msgspec.structs.replace(status, next=app.repeat(status.next))


def _without_clock(status: Status) -> Status:
    """Return a status without the parts that change with time alone."""
    return msgspec.structs.replace(
        status,
        running=tuple(_AGO.sub("", one) for one in status.running),
        next=_AGO.sub("", status.next),
        models=tuple(
            msgspec.structs.replace(
                row,
                drift=tuple(one for one in row.drift if one.reason != "loading"),
                endpoints=tuple(msgspec.structs.replace(one, seconds={}) for one in row.endpoints),
            )
            for row in status.models
        ),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _drift(status: Status) -> Iterator[str]:
    yield from dict.fromkeys(f"  {one}" for row in status.models for one in row.drift)
    if not status.ok:
        yield f"next: {status.next}"


def _lines(status: Status, *, every: bool) -> Iterator[str]:
    asked = [one.endpoint for one in status.models[0].endpoints] if status.models else []
    rows = status.models
    # Where models.config cannot be read nothing was compared, so nothing can be left out.
    if len(rows) > MOST_ROWS and not every and not status.unknown:
        rows = tuple(row for row in rows if row.differs)
    if rows or not status.models:
        yield from _table(rows, asked)
    if len(rows) < len(status.models):
        yield _counted_models(status.models, asked=bool(asked))
    yield from _failed(status)
    yield from (f"running: {one}" for one in status.running)
    yield from (f"note: {one}" for one in status.notes)
    for one in status.behind:
        yield f"behind: {one.endpoint} since {one.since}: {one.why}"
    if not asked:
        why = "no --endpoint" if status.models else "there is no model to ask about"
        yield f"servers: not asked ({why})"
    if status.ok:
        yield f"next: {status.next}"


def _counted_models(models: Sequence[ModelStatus], *, asked: bool) -> str:
    """Return how many models there are of each sort. A model that was not compared everywhere does not agree."""
    rest = [row for row in models if not row.differs]
    unsure = sum(row.unanswered for row in rest)
    unseen = sum(bool(row.elsewhere) and not row.unanswered for row in rest)
    agree = len(rest) - unsure - unseen
    where = "" if asked else " on disk"
    if agree == len(models):
        return f"{agree} models agree{where} (--all lists them)"
    counts = {
        "with differences": len(models) - len(rest),
        f"in agreement{where}": agree,
        "not compared with every server": unsure,
        "with unchecked versions elsewhere": unseen,
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{len(models)} models: {said} (--all lists them)"


def _table(rows: Sequence[ModelStatus], asked: Sequence[str]) -> Iterator[str]:
    many = len(asked) > MOST_COLUMNS
    heads = [f"{len(asked)} SERVERS"] if many else asked
    yield from table(
        ["MODEL", "ON DISK", "CONFIG", "LABELS", *heads, "NOTES"],
        [
            [
                row.model,
                versions_shown(row.on_disk),
                _config(row),
                ", ".join(f"{label}={at}" for label, at in sorted(row.labels.items())) or "-",
                *([_counted(row.endpoints)] if many else map(_endpoint, row.endpoints)),
                "; ".join(
                    [
                        *([f"held: {row.held}"] if row.held else []),
                        *(
                            [f"servers may still follow {row.policy_before}"]
                            if row.policy_before
                            else []
                        ),
                        *([f"bad: {pinned(row.bad)}"] if row.bad else []),
                        *([f"unmanaged: {pinned(row.foreign)}"] if row.foreign else []),
                        *(
                            [f"trash: {versions_shown(row.trash)} ({sized(row.trash_size)})"]
                            if row.trash
                            else []
                        ),
                        *([f"unmanaged: base path {row.elsewhere}"] if row.elsewhere else []),
                        *([] if row.ours or row.elsewhere or row.foreign else ["unmanaged"]),
                    ]
                )
                or "-",
            ]
            for row in rows
        ],
    )


def _failed(status: Status) -> Iterator[str]:
    """Yield the errors of versions that servers could not load and that are no longer pinned.

    For pinned versions the differences have the errors.
    """
    for row in status.models:
        for at in row.endpoints:
            for one in at.others:
                if one.failed and one.version not in row.pinned:
                    yield f"failed: {at.endpoint}: {row.model}@{one.version}: {one.error}"


def _config(row: ModelStatus) -> str:
    """Return the versions that the config serves, with the policy if that lets the disk decide."""
    if row.policy == "unknown":
        return row.policy
    shown = "?" if row.elsewhere and row.policy != "specific" else pinned(row.pinned)
    return shown if row.policy in {"specific", "none"} else f"{shown} ({row.policy})"


def _counted(endpoints: Sequence[OnEndpoint]) -> str:
    """Return how many servers have the same answer: there are too many for a column each."""
    counts = Counter(map(_endpoint, endpoints))
    return "; ".join(f"{count} x {said}" for said, count in counts.most_common())


def _endpoint(one: OnEndpoint) -> str:
    if one.error:
        return "no answer"
    others = [
        *(f"{status.version} {status.state}" for status in one.others),
        *(f"{version} gone" for version in one.stale),
    ]
    return ", ".join([pinned(one.available), *others])
