"""servingrepo diff."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from servingrepo.cli.command import command as make
from servingrepo.cli.compatibility import change_lines
from servingrepo.cli.options import takes
from servingrepo.cli.proofs import drift_lines
from servingrepo.cli.reports import ReportFiles, reporting, result_with_report
from servingrepo.cli.subjects import taken_for_names
from servingrepo.texts import as_path, is_path, some
from servingrepo.verbs.options import TrialOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.cli.app import App
    from servingrepo.reports.values import Report
    from servingrepo.verbs.diff import Diff


@make(
    "diff",
    examples="""
    servingrepo diff ranker@served ranker@latest
    servingrepo diff ranker ./runs/2026_05_10_baseline
    servingrepo diff -q ranker@6 ranker@7
    servingrepo diff ranker@6 ranker@7 --case requests.json --report diff.html""",
)
@click.argument("old", metavar="REF|PATH")
@click.argument("new", metavar="REF|PATH")
@takes(options=TrialOptions, files=ReportFiles)
@click.pass_obj
def command(app: App, old: str, new: str, options: TrialOptions, files: ReportFiles) -> None:
    """Compare the signatures of two versions or exports, as their clients see them: same, compatible or breaking.

    With --case both also answer these cases, in one server, OLD twice: this shows how their answers differ, and how
    much OLD differs from itself.

    NAME alone is its served version. A path has a slash in it. -q prints the verdict alone. The exit code is 0 for
    every verdict: use `promote` or `contract --check` to stop a pipeline.
    """
    from servingrepo.verbs.diff import diff

    runs = tuple(as_path(one, "path") for one in (old, new) if is_path(one))
    with (
        reporting(app, files, kind="Comparison", subject=f"{old} > {new}", runs=runs),
        taken_for_names(old, new),
    ):
        only_paths = is_path(old) and is_path(new)
        repo = None if only_paths else app.open().value
        found = diff(repo, old, new, msgspec.structs.replace(options, notice=app.note))

    def report(created: str) -> Report:
        from servingrepo.reports.differences import diff_report

        return diff_report(found, created=created)

    result_with_report(app, files, report, found, _lines(found), bare=found.verdict, runs=runs)


def _lines(found: Diff) -> Iterator[str]:
    yield f"{found.old} > {found.new}: {found.verdict}"
    yield from (f"  {line}" for line in change_lines(found.changes))
    before, after = found.tensorflow
    if before != after:
        yield f"  written by  TensorFlow {before or 'unknown'} > {after or 'unknown'}"
    if found.new_ops is None:
        yield "  operations  not compared: a record does not have them"
    elif found.new_ops:
        yield f"  operations  new: {some(found.new_ops, most=10)}"
    for op in found.new_effects or ():
        yield f"  reaches out by {op}: promote refuses it without --allow-op {op}"
    if found.drift is not None:
        yield from drift_lines(found.drift, found.old)
