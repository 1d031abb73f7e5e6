"""servingrepo warmup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from servingrepo.cli.command import command as make
from servingrepo.cli.kinds import RunPath
from servingrepo.cli.mounted import RunPlace, read_in_a_child
from servingrepo.cli.options import takes
from servingrepo.cli.proofs import proof_lines
from servingrepo.texts import plural
from servingrepo.verbs.options import WarmupOptions

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make(
    "warmup",
    examples="""
    servingrepo warmup runs/2026_05_10_baseline --case requests.json
    servingrepo warmup runs/2026_05_10_baseline --case requests.json --replace --dry-run""",
)
@click.argument("run", type=RunPath(path_type=Path))
@takes(options=WarmupOptions, place=RunPlace)
@click.pass_obj
def command(app: App, run: Path, options: WarmupOptions, place: RunPlace) -> None:
    """Write the warm-up file of a RUN: requests that servers replay before a version becomes available.

    So the first clients do not wait until the model has compiled. An engine loads a copy of the export with the file
    first, and answers the same cases: only then the file is written, to assets.extra/tf_serving_warmup_requests of
    the export. Without --case the cases in the run's folder smoke are taken.
    """
    from servingrepo.verbs.warmup import warmup

    run = place.runs / run
    read_in_a_child(run, seconds=options.run_wait)
    done = warmup(app.open().value, run, msgspec.structs.replace(options, notice=app.note))
    verb = "would be written" if done.dry_run else "written"
    lines = [
        f"{done.path} {verb}: {plural(done.records, 'request', 'requests')}, {done.size} bytes"
    ]
    if done.proof is not None:
        lines += proof_lines(done.proof, str(run))
    lines.append(f"next          servingrepo promote {run} --model NAME")
    app.result(done, lines, bare=done.path)
