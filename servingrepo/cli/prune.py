"""servingrepo prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from servingrepo.cli.app import App, table
from servingrepo.cli.command import command as make
from servingrepo.cli.keeping import KeepRules, given_by_hand, policy_of
from servingrepo.cli.options import takes
from servingrepo.errors import UsageError
from servingrepo.texts import sized
from servingrepo.verbs.options import PruneOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.pruning import Pruned


@make(
    "prune",
    examples="""
    servingrepo prune --keep-last 5 --keep-within 30d --dry-run
    servingrepo prune ranker --keep-last 3 --endpoint localhost:8500
    servingrepo prune --empty-trash --older-than 7d
    servingrepo prune --keep-last 2 --empty-trash""",
)
@click.argument("models", metavar="[NAME]...", nargs=-1)
@takes(rules=KeepRules, options=PruneOptions)
@click.pass_obj
def command(app: App, models: tuple[str, ...], options: PruneOptions, rules: KeepRules) -> None:  # noqa: ARG001 - each model has its own
    """Move versions that no rule keeps to the trash, from which `restore` brings them back.

    A version stays if any rule keeps it, if it is served, pinned or labelled, if its model is on hold, if rollback
    would go to it, if a command verifies or smoke-tests it now, or if an --endpoint has it loaded. Without a rule
    nothing is pruned. Only --empty-trash deletes. Numbers are never used again. Rules may also be in [prune] and
    [models.NAME] of servingrepo.toml.
    """
    from servingrepo.verbs.prune import prune

    if options.older_than is not None and not options.empty_trash:
        raise UsageError(
            "--older-than means nothing without --empty-trash",
            hint="servingrepo prune --empty-trash --older-than 7d; --keep-within keeps versions by their age",
        )
    repo = app.open()
    if given_by_hand() or not options.empty_trash:
        policies = {name: policy_of(name) for name in models or repo.models()}
        options = msgspec.structs.replace(options, keep=policies or policy_of(""))
    done = prune(repo.value, models, options)
    gone = [f"{one.model}@{version}" for one in done.models for version in one.gone]
    deleted = [f"{one.model}@{one.version}" for one in done.emptied if one.deleted]
    app.result(done, _lines(done, gone, deleted), bare="\n".join([*gone, *deleted]) or None)


def _lines(done: Pruned, gone: list[str], deleted: list[str]) -> Iterator[str]:
    if done.models:
        yield from decision_lines(done)
    dry = "dry run, nothing was changed: " if done.dry_run else ""
    if gone:
        verb = "would go" if done.dry_run else "went"
        yield f"{dry}{len(gone)} {verb} to the trash, {sized(done.moved)}: {', '.join(gone)}"
        yield f"  back      servingrepo restore {gone[0]}"
    elif done.models:
        yield f"{dry}nothing to prune"
    for one in done.emptied:
        if not one.deleted:
            yield f"stays in the trash: {one.model}@{one.version}: {one.reason}"
    if deleted:
        verb = "would be deleted" if done.dry_run else "deleted for good"
        freed = "would be freed" if done.dry_run else "freed"
        yield f"{dry}{len(deleted)} {verb}, {sized(done.freed)} {freed}: {', '.join(deleted)}"
    elif done.emptied or not done.models:
        yield f"{dry}nothing in the trash to delete"
    if done.trash_size and not deleted:
        yield f"  next      servingrepo prune --empty-trash frees {sized(done.trash_size)}"


def decision_lines(done: Pruned) -> Iterator[str]:
    """Yield a table of all versions: whether each is kept, and why."""
    goes = "would go" if done.dry_run else "goes"
    yield from table(
        ["VERSION", "KEPT", "SIZE", "REASON"],
        [
            [
                f"{row.model}@{one.version}",
                "keep" if one.keep else goes,
                sized(one.size),
                "; ".join(one.reasons),
            ]
            for row in done.models
            for one in row.decisions
        ],
    )
