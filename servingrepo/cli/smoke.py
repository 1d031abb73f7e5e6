"""servingrepo smoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.options import engine_options
from servingrepo.cli.proofs import proof_lines
from servingrepo.cli.subjects import taken_for_names
from servingrepo.errors import SmokeFailed

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.cli.app import App
    from servingrepo.servers.engines.choice import EngineChoice


@make(
    "smoke",
    examples="""
    servingrepo smoke ranker@latest
    servingrepo smoke ./runs/2026_05_10_baseline --case requests.json
    servingrepo smoke ranker --strict""",
)
@click.argument("subject", metavar="REF|PATH")
@click.option(
    "--strict", is_flag=True, help="Every signature must be proven, none left inconclusive."
)
@engine_options
@click.pass_obj
def command(
    app: App,
    subject: str,
    strict: bool,
    engine: EngineChoice,
    timeout: float,
    cases: tuple[Path, ...],
) -> None:
    """Serve a version, or an export that was never published, in a child process and send it requests.

    At least one request per signature, made up from what the signature and the graph say, or taken from --case
    files. Nothing is changed or recorded. NAME alone means its served version, else its latest; a path has a
    slash in it.
    """
    from servingrepo.api.arguments import is_path
    from servingrepo.servers.engines.choice import choose_engine
    from servingrepo.smoke import judge, load_cases
    from servingrepo.texts import as_path
    from servingrepo.verbs.smoke import smoke_path

    if is_path(subject):
        loaded = tuple(case for file in cases for case in load_cases(file))
        proof = smoke_path(
            as_path(subject, "path"),
            engine=choose_engine(engine),
            cases=loaded,
            timeout=timeout,
            notice=app.note,
        )
    else:
        with taken_for_names(subject):
            proof = app.open().smoke(
                subject, engine=engine, cases=cases, timeout=timeout, notice=app.note
            )
    try:
        judge(proof.report, strict=strict)
    except SmokeFailed as failed:
        failed.details["proof"] = proof
        if not app.json:
            app.result(proof, [subject, *proof_lines(proof)])
        raise
    app.result(proof, [subject, *proof_lines(proof)], bare="ok")
