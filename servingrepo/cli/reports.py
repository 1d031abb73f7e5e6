"""Report files on the command line: their options, and how they are written beside the result or the error."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from servingrepo.errors import ServingRepoError, UnsafeExport, UsageError
from servingrepo.options import Option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from servingrepo.cli.app import App
    from servingrepo.reports.values import Report
    from servingrepo.repository.records import VersionRecord

__all__ = ["ReportFiles", "record_for_report", "reporting", "result_with_report", "write_report"]


class ReportFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files that get a report, each in its own form.

    Raises:
        UsageError: Two of them are one file.
    """

    report: Annotated[
        Path | None,
        Option(
            help="Write a report as one page of HTML that works offline; also if the command fails.",
            section="output",
            metavar="FILE",
            kind="new file",
        ),
    ] = None
    junit: Annotated[
        Path | None,
        Option(
            help="Write the checks as JUnit's XML, for a CI system.",
            section="output",
            metavar="FILE",
            kind="new file",
        ),
    ] = None
    markdown: Annotated[
        Path | None,
        Option(
            help="Write a short report as Markdown, for a merge request.",
            section="output",
            metavar="FILE",
            kind="new file",
        ),
    ] = None

    def __post_init__(self) -> None:
        named = [os.path.realpath(one) for one in self.paths]
        if len(set(named)) < len(named):
            raise UsageError(
                "two reports would be one file",
                hint="give each of --report, --junit and --markdown its own",
            )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that were asked for."""
        return tuple(one for one in (self.report, self.junit, self.markdown) if one is not None)


@contextmanager
def reporting(
    app: App, files: ReportFiles, *, kind: str, subject: str, runs: tuple[Path, ...] = ()
) -> Iterator[None]:
    """Write the report of a command that fails in the block. The error stays the command's.

    Args:
        app: The call.
        files: The files that were asked for.
        kind: What the report is about.
        subject: The model, version or path.
        runs: Directories of others, out of which no report is written by a link.
    """
    try:
        yield
    except ServingRepoError as error:
        failed = error

        def make(created: str) -> Report:
            from servingrepo.reports.promotions import failure_report

            return failure_report(
                failed, kind=kind, subject=subject, proof=failed.proof, created=created
            )

        try:
            _write_all(app, files, make, runs)
        except ServingRepoError as unwritten:
            error.problems = (*error.problems, unwritten.message)
        raise


def result_with_report(
    app: App,
    files: ReportFiles,
    make: Callable[[str], Report],
    value: Any,
    lines: Iterable[str],
    *,
    bare: object,
    runs: tuple[Path, ...] = (),
) -> None:
    """Write the report of a command that succeeded, and print its result.

    Raises:
        StorageFailed, NoSpace, NoPermission, UnsafeExport: A report cannot be written. The result is printed all the
            same; with --json it is in the error's details.
    """
    try:
        _write_all(app, files, make, runs)
    except ServingRepoError as error:
        if app.json:
            error.add_details(result=value)
        else:
            app.result(value, lines, bare=bare)
        error.hint = f"the command itself has succeeded; {error.hint or 'give another file'}"
        raise
    app.result(value, lines, bare=bare)


def _write_all(
    app: App, files: ReportFiles, make: Callable[[str], Report], runs: tuple[Path, ...]
) -> None:
    if not files.paths:
        return
    from servingrepo.reports.html import as_html
    from servingrepo.reports.junit import as_junit
    from servingrepo.reports.markdown import as_markdown
    from servingrepo.repository.repository import utc_now

    report = make(utc_now().isoformat(timespec="seconds"))
    forms = ((files.report, as_html), (files.junit, as_junit), (files.markdown, as_markdown))
    for path, form in forms:
        if path is not None:
            write_report(app, path, form(report), runs=runs)


def write_report(app: App, path: Path, data: bytes, *, runs: tuple[Path, ...] = ()) -> None:
    """Write a report whole: readers see the old file or the new one, and a link in its place is replaced.

    Raises:
        StorageFailed, NoSpace, NoPermission: It cannot be written.
        UnsafeExport: A link in a run leads out of the run to it.
    """
    target = Path(os.path.abspath(path))  # noqa: PTH100 - links must stay for the comparison
    for run in runs:
        place = Path(os.path.abspath(run))  # noqa: PTH100
        if not target.is_relative_to(place):
            continue  # the run is not asked: its file system may hang
        if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(place)):
            raise UnsafeExport(
                f"the report {path} was not written: a link in {run} leads out of it",
                hint="give a file that is not in the run",
            )
    try:
        app.disk().replace_file(target, data, step="report")
    except ServingRepoError as error:
        raise error.with_message(f"the report was not written: {error.message}") from error


def record_for_report(app: App, reference: str) -> VersionRecord | None:
    """Return the record of a version for a report; None if it cannot be read, or if there is none."""
    try:
        return app.open().show_version(reference)
    except ServingRepoError:
        return None
