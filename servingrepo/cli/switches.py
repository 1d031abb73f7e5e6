"""The output of serve, unserve, rollback and label: old and new version, live servers, and the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.cli.app import App, pinned
from servingrepo.texts import sized

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.fleet.hooks import HookResult
    from servingrepo.verbs.change import Switched


def switch_lines(done: Switched) -> Iterator[str]:
    """Yield the lines of the output."""
    old = done.served_before if done.served_before is not None else "nothing"
    new = done.served_after if done.served_after is not None else "nothing"
    dry = "dry run, nothing was changed: " if done.dry_run else ""
    if done.changed and old != new:
        yield f"{dry}{done.model}: {old} > {new}"
    else:
        yield f"{dry}{done.model}: {new}, as before"
    if done.by_number:
        yield "  by number    history knows of no version served before: this is the next lower adopted one"
    if max(len(done.before), len(done.after)) > 1:
        yield f"  pinned       {pinned(done.before)} > {pinned(done.after)}"
    yield from _labels(done)
    yield from (f"  warning      {note}" for note in done.notes)
    if done.dry_run and done.both_loaded:
        yield f"  both loaded  {sized(done.both_loaded)} on disk: a server holds old and new while it switches"
    for one in done.endpoints:
        yield f"  {'live  ' if one.follows else 'BEHIND'}       {one.endpoint}: {one.outcome}"
    yield from (f"  stage {number:<6} {one}" for number, one in enumerate(done.stages, start=1))
    if not done.endpoints and not done.dry_run:
        yield "  live         not checked: no --endpoint was given; servers that poll models.config follow it"
    if done.marked_bad is not None:
        would = "would be " if done.dry_run else ""
        yield (
            f"  marked bad   {would}{done.marked_bad}: no pipeline brings it back "
            f"(servingrepo mark-bad {done.model}@{done.marked_bad} --clear does)"
        )
    for promotion in done.promoting:
        yield f"  promoting    {promotion}: it still runs, and will publish its version without serving it"
    if done.held:
        yield "  held         promotions do not change what this model serves"
    yield f"  next         servingrepo status {done.model}{_endpoints(done)}"


def _labels(done: Switched) -> Iterator[str]:
    for label in sorted({*done.labels_before, *done.labels}):
        was, now = done.labels_before.get(label, "none"), done.labels.get(label, "gone")
        yield f"  label        {label}: " + (
            f"{was} > {now}" if was != now else f"{now}, as before"
        )


def print_switch(app: App, done: Switched, *, bare: object, more: Iterable[str] = ()) -> None:
    """Print the result of a change of what is served. `bare` is for -q; `more` comes before the last line."""
    print_hooks(app, done.hooks)
    for line in done.unproven:
        app.warn(line)
    *lines, last = switch_lines(done)
    app.result(done, [*lines, *more, last], bare=bare)


def _endpoints(done: Switched) -> str:
    return "".join(f" --endpoint {one.endpoint}" for one in done.endpoints)


def print_hooks(app: App, hooks: Iterable[HookResult]) -> None:
    """Print on stderr which hooks failed after the change."""
    for one in hooks:
        if one.trouble:
            app.note(f"warning: the command {one.when} it failed: {one.command}: {one.trouble}")
