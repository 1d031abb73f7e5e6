"""servingrepo smoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.cli.proofs import proof_lines
from servingrepo.cli.reports import ReportFiles, record_for_report, reporting, result_with_report
from servingrepo.cli.subjects import taken_for_names
from servingrepo.errors import BadCase, SmokeFailed, UsageError
from servingrepo.options import Option
from servingrepo.servers.engines.options import EngineChoice
from servingrepo.texts import as_path, is_path, plural
from servingrepo.verbs.options import SmokeOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App
    from servingrepo.reports.values import Report
    from servingrepo.repository.records import Proof
    from servingrepo.verbs.smoke import OnServer


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """How to judge the proof."""

    strict: Annotated[
        bool,
        Option(help="Fail if a signature stays inconclusive.", section="proof"),
    ] = False


@make(
    "smoke",
    examples="""
    servingrepo smoke ranker@latest
    servingrepo smoke ./runs/2026_05_10_baseline --case requests.json
    servingrepo smoke ranker@served --write-answers golden.json
    servingrepo smoke ./runs/2026_05_11_wider --case golden.json
    servingrepo smoke ranker --strict
    servingrepo smoke ranker --case requests.json --report out.html
    servingrepo smoke ranker --engine embedded --also tensorflow/serving:2.16.1""",
)
@click.argument("subject", metavar="REF|PATH")
@takes(options=SmokeOptions, asked=Judged, files=ReportFiles)
@click.pass_obj
def command(
    app: App, subject: str, options: SmokeOptions, asked: Judged, files: ReportFiles
) -> None:
    """Serve a version, or an export that was never published, in a child process and send it requests.

    Every signature gets at least one request: from cases, or made up from the signature and the graph.
    Without --case, the cases in configs/NAME.cases.* of the repository are used, or in the folder smoke of a run.
    This changes and records nothing. NAME alone means its served version, else its latest. A path has a slash in it.
    """
    from servingrepo.repository.proving import weighing
    from servingrepo.smoke.report import judge

    if options.also:
        _on_servers(app, subject, msgspec.structs.replace(options, notice=app.note), asked, files)
        return
    runs = (as_path(subject, "path"),) if is_path(subject) else ()
    with reporting(app, files, kind="Smoke test", subject=subject, runs=runs):
        proof = _prove(app, subject, msgspec.structs.replace(options, notice=app.note))
        try:
            with weighing(proof):
                judge(proof.report, strict=asked.strict)
        except (SmokeFailed, BadCase) as failed:
            failed.details["proof"] = proof
            if not app.json:
                app.result(proof, [subject, *proof_lines(proof, subject)])
            raise

    def report(created: str) -> Report:
        from servingrepo.reports.promotions import smoke_report

        tested = f"{proof.report.model}@{proof.report.version}"
        record = record_for_report(app, tested) if not runs else None
        named = subject if runs else tested
        return smoke_report(proof, subject=named, record=record, created=created)

    lines = [subject, *proof_lines(proof, subject)]
    result_with_report(app, files, report, proof, lines, bare="ok", runs=runs)


def _on_servers(
    app: App, subject: str, options: SmokeOptions, asked: Judged, files: ReportFiles
) -> None:
    """Test on several servers and print a row for each.

    Raises:
        SmokeFailed: A server does not prove it; the problems have its reason.
        UsageError: A report was asked for, which is about one server.
    """
    from servingrepo.verbs.smoke import smoke_on_servers

    if files.paths:
        raise UsageError(
            "a report is about one server: --also cannot go with --report, --junit and --markdown",
            hint="write a report for each server, or take --json",
        )
    if is_path(subject):
        done = smoke_on_servers(None, subject, options)
    else:
        with taken_for_names(subject):
            done = smoke_on_servers(app.open().value, subject, options)
    failed = [one for one in done.rows if not one.enough(strict=asked.strict)]
    lines = [f"{subject} on {plural(len(done.rows), 'server', 'servers')}"]
    lines += [f"  {_row(one, strict=asked.strict)}" for one in done.rows]
    if failed:
        error = SmokeFailed(
            f"{len(failed)} of {plural(len(done.rows), 'server', 'servers')} do not prove {subject}",
            problems=[_row(one, strict=asked.strict) for one in failed],
            hint="leave out servers that need not run it, or export it for the oldest of them",
        )
        error.details["servers"] = done
        if not app.json:
            app.result(done, lines)
        raise error
    app.result(done, lines, bare="ok")


def _row(one: OnServer, *, strict: bool) -> str:
    if one.proof is None:
        return f"{one.server}: {one.error}: {one.reason}"
    report = one.proof.report
    verdict = "passed" if one.enough(strict=strict) else "not proven"
    why = "; ".join(map(str, (*report.failed, *report.inconclusive)))
    shown = f"{one.server} ({one.proof.server}): {verdict}, {len(report.passed)} passed"
    return f"{shown}; {why}" if why else shown


def _prove(app: App, subject: str, options: SmokeOptions) -> Proof:
    from servingrepo.servers.engines.choice import choose_engine
    from servingrepo.verbs.smoke import smoke, smoke_path

    if is_path(subject):
        assert isinstance(options.engine, EngineChoice)  # nosec B101 # noqa: S101 - takes made it
        engine = choose_engine(options.engine)
        return smoke_path(as_path(subject, "path"), engine, options, disk=app.disk())
    with taken_for_names(subject):
        return smoke(app.open().value, subject, options)
