"""servingrepo export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.kinds import RunPath
from servingrepo.cli.mounted import RunPlace, read_in_a_child
from servingrepo.cli.options import takes
from servingrepo.verbs.options import ExportOptions, optional_path

if TYPE_CHECKING:
    from servingrepo.cli.app import App


@make(
    "export",
    examples="""
    servingrepo export runs/2026_05_10_baseline
    servingrepo export runs/job/models/best.h5 --output runs/job/saved_model
    servingrepo export model.keras --code layers.py""",
)
@click.argument("model", metavar="MODEL", type=RunPath(path_type=Path))
@takes(options=ExportOptions, place=RunPlace)
@click.pass_obj
def command(app: App, model: Path, options: ExportOptions, place: RunPlace) -> None:
    """Make a SavedModel from a Keras MODEL: a .keras or whole-model .h5 file, or a run that has one.

    Keras loads it in a process of its own, in safe mode; the repository is not touched.
    """
    from servingrepo.runs.export import export_model

    model = place.runs / model
    read_in_a_child(model, seconds=options.run_wait)
    done = export_model(
        model,
        output=optional_path(options.output),
        allow_lambda=options.allow_lambda,
        code=tuple(map(Path, options.code)),
        timeout=options.timeout,
        disk=app.disk(),
    )
    app.result(
        done,
        [
            f"{done.saved_model} made from {done.model} by Keras {done.keras}",
            f"next          servingrepo promote {done.saved_model} --model NAME",
        ],
        bare=done.saved_model,
    )
