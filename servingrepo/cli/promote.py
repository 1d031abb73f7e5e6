"""servingrepo promote."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import msgspec
from click.core import ParameterSource

from servingrepo.cli.app import App, Bar, pinned
from servingrepo.cli.command import command as make
from servingrepo.cli.compatibility import compatibility_lines
from servingrepo.cli.keeping import policy_of_settings
from servingrepo.cli.kinds import RunPath
from servingrepo.cli.mounted import RunPlace, read_in_a_child
from servingrepo.cli.options import takes
from servingrepo.cli.proofs import drift_lines, proof_lines, typed_for_smoke
from servingrepo.cli.reports import ReportFiles, record_for_report, reporting, result_with_report
from servingrepo.cli.switches import print_hooks
from servingrepo.errors import UsageError
from servingrepo.options import Option
from servingrepo.texts import sized
from servingrepo.verbs.options import PromoteOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.reports.values import Report
    from servingrepo.runs.tracing import Context
    from servingrepo.verbs.values import Promotion


class Then(msgspec.Struct, frozen=True, kw_only=True):
    """The actions after a promotion."""

    prune: Annotated[
        bool,
        Option(
            help="Afterwards prune the model by the rules in servingrepo.toml. [default: no-prune]",
            flags="--prune/--no-prune",
            tables=("models",),
        ),
    ] = False


@make(
    "promote",
    examples="""
    servingrepo promote runs/2026_05_10_baseline --model ranker -m "new features"
    servingrepo promote runs/latest --model ranker --no-serve
    servingrepo promote runs/latest --model ranker --endpoint localhost:8500
    servingrepo promote runs/latest --model ranker --require 'validation/accuracy >= served - 0.005'
    servingrepo promote runs/latest --model ranker --report out.html --junit junit.xml --markdown summary.md
    version=$(servingrepo promote -q runs/latest --model ranker)""",
)
@click.argument("run", type=RunPath(path_type=Path))
@takes(options=PromoteOptions, place=RunPlace, then=Then, files=ReportFiles)
@click.pass_obj
def command(
    app: App, run: Path, options: PromoteOptions, place: RunPlace, then: Then, files: ReportFiles
) -> None:
    """Publish the SavedModel of a RUN directory as the next version of a model, and serve it.

    First the export is copied to a directory that servers ignore. There it is hashed, and an engine serves it and
    sends it requests. Only then it appears under its number, whole, and models.config points at it. Content that was
    published before is not published again: you get its version.

    An export is refused before the copy if it would break clients of the served version or the pinned contract, or if
    its graph has operations that touch files, network or processes.
    """
    from servingrepo.verbs.promote import promote

    _refuse_unsmoked(smoke=options.smoke)
    run = place.runs / run
    kind = "Dry run of a promotion" if options.dry_run else "Promotion"
    with (
        reporting(app, files, kind=kind, subject=f"{run} as {options.model}", runs=(run,)),
        Bar(app, f"{'reading' if options.dry_run else 'copying'} {run}") as bar,
    ):

        def expect(events: int, export: int) -> None:
            bar.expect(events if options.dry_run else events + export)

        options = msgspec.structs.replace(
            options,
            keep=policy_of_settings(app, options.model) if then.prune else None,
            context=_context(),
            notice=app.note,
            run_read=read_in_a_child(run, seconds=options.run_wait),
            sizes=expect,
            progress=bar.advance,
        )
        done = promote(app.open().value, run, options)
    print_hooks(app, done.hooks)
    for line in done.unproven:
        app.warn(line)
    if done.prune_failed:
        verb = "would not be" if done.dry_run else "was not"
        app.warn(f"{done.model} {verb} pruned afterwards: {done.prune_failed}")

    def report(created: str) -> Report:
        from servingrepo.reports.promotions import promotion_report

        new = done.dry_run and done.same_as is None
        record = None if new else record_for_report(app, f"{done.model}@{done.version}")
        return promotion_report(done, record=record, created=created)

    result_with_report(
        app, files, report, done, _lines(done, options), bare=done.version, runs=(run,)
    )


def _refuse_unsmoked(*, smoke: bool) -> None:
    """Refuse options of the smoke test on a command line without a smoke test.

    The settings file and the environment may have such options: they count for other calls.

    Raises:
        UsageError: There are such options; the error names all.
    """
    if smoke:
        return
    ctx = click.get_current_context()
    typed = typed_for_smoke()
    if not typed:
        return
    came_from = {
        ParameterSource.ENVIRONMENT: " (SERVINGREPO_PROMOTE_SMOKE says so)",
        ParameterSource.DEFAULT_MAP: " (the settings file says so)",
    }.get(ctx.get_parameter_source("smoke") or ParameterSource.COMMANDLINE, "")
    raise UsageError(
        f"{', '.join(typed)} and --no-smoke{came_from} contradict each other: there would be no smoke test",
        hint="leave --no-smoke out (or give --smoke if a setting says no-smoke), or leave the others out",
    )


def _context() -> Context:
    """Return the facts about this call for the record: command, directory and environment. `trace` masks secrets."""
    from servingrepo.runs.tracing import Context

    return Context(
        command=("servingrepo", *sys.argv[1:]),
        working_directory=Path.cwd(),
        environment=dict(os.environ),
    )


def _lines(done: Promotion, options: PromoteOptions) -> Iterator[str]:
    name = f"{done.model}@{done.version}"
    yield from _headline(done, name, number=options.version)
    yield f"  from      {done.export}"
    yield f"  size      {sized(done.size)} in {done.files} files"
    yield from (f"  note      {doubt}" for doubt in done.doubts)
    yield from (f"  not read  {problem}" for problem in done.unread)
    yield from _proofs(done)
    if done.before != done.after:
        yield f"  {'would serve' if done.dry_run else 'served'}    {pinned(done.before)} > {pinned(done.after)}"
    else:
        yield f"  served    {pinned(done.after)}, as before"
    yield from (f"  warning   {note}" for note in done.notes)
    yield from (f"  {one.endpoint}  {one.outcome}" for one in done.endpoints)
    yield from (f"  stage {number:<3} {one}" for number, one in enumerate(done.stages, start=1))
    if done.same_in_trash is not None:
        old = f"{done.model}@{done.same_in_trash}"
        yield f"  same      {old}, which is in the trash, has this content too (servingrepo restore {old})"
    yield from _pruned(done)
    if done.held is not None:
        yield f"  held      {done.held or 'no reason given'}; so it was not served"
        yield f"  next      servingrepo serve {name}, or servingrepo release-hold {done.model}"
    elif done.overtaken and options.serve is not False:
        yield f"  overtaken {done.overtaken}; so it was not served"
        yield f"  next      servingrepo status {done.model}; servingrepo serve {name} if that is still meant"
    elif not done.served:
        yield f"  next      servingrepo serve {name}"
    elif options.serve is not False:
        back = f"; servingrepo rollback {done.model} goes back" if done.can_go_back else ""
        at = "".join(f" --endpoint {one.endpoint}" for one in done.endpoints)
        yield f"  next      servingrepo status {done.model}{at}{back}"


def _proofs(done: Promotion) -> Iterator[str]:
    """Yield the gates, the proof and the compatibility of the version, and what was not checked."""
    for gate in done.gates:
        yield f"  gate      {gate.gate}: {gate.verdict}: {gate.why}"
    if done.proof is not None:
        yield from proof_lines(done.proof, f"{done.model}@{done.version}")
        if done.proof.drift is not None:
            yield from drift_lines(done.proof.drift, f"{done.model}@{done.proof.drift.live}")
        if done.same_as is not None:
            yield "            added to its record"
    if done.same_as is not None:
        return
    if done.proof is None:
        yield "  proof     not checked" + (" (a dry run runs nothing)" if done.dry_run else "")
    if done.guard is not None:
        yield from compatibility_lines(done.guard, smoked=done.proof is not None)


def _pruned(done: Promotion) -> Iterator[str]:
    """Yield the result of the prune that followed. The command warns of a failed prune on stderr."""
    if done.pruned is None:
        return
    gone = [version for row in done.pruned.models for version in sorted(row.gone)]
    if done.dry_run:
        moved = f"{', '.join(map(str, gone))}, {sized(done.pruned.moved)}" if gone else "nothing"
        yield f"  would prune {moved}, by the rules in servingrepo.toml ({done.pruned.models[0].policy})"
    elif gone:
        trash = f"{', '.join(map(str, gone))}, {sized(done.pruned.moved)} to the trash"
        yield f"  pruned    {trash}; servingrepo prune --empty-trash frees {sized(done.pruned.trash_size)}"
    else:
        yield "  pruned    nothing: every version is kept"


def _headline(done: Promotion, name: str, *, number: int | None) -> Iterator[str]:
    """Yield the first line: what happened."""
    dry = "dry run, nothing was changed: " if done.dry_run else ""
    if done.same_as is not None:
        tested = "; it would get a smoke test" if done.would_prove else ""
        yield f"{dry}{name} has this content already: nothing {'would be' if dry else 'was'} published{tested}"
        if number is not None and number != done.version:
            yield f"  version   --version {number} was not used"
    elif done.dry_run:
        yield f"{dry}would publish {name}"
    else:
        yield f"{name} published"
