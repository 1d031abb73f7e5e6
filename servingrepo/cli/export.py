"""servingrepo export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from servingrepo.cli.command import command as make
from servingrepo.cli.mounted import read_in_a_child, run_options
from servingrepo.cli.paths import RunPath

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
@click.option(
    "--output",
    type=RunPath(path_type=Path),
    metavar="DIR",
    help="Where to. [default: saved_model in the run, or beside the file]",
)
@click.option(
    "--allow-lambda",
    is_flag=True,
    help="Run the Python code of Lambda layers that is stored in the file: only if you trust it.",
)
@click.option(
    "--code",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Python that defines and registers the classes that the model needs; it is run; repeatable.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take.",
)
@run_options
@click.pass_obj
def command(
    app: App,
    model: Path,
    output: Path | None,
    allow_lambda: bool,
    code: tuple[Path, ...],
    timeout: float,
    runs: Path,
    run_wait: float,
) -> None:
    """Make a SavedModel from a Keras MODEL: a .keras or whole-model .h5 file, or a run that has one.

    Keras loads it in a process of its own, in safe mode; the repository is not touched.
    """
    from servingrepo.runs.export import export_model

    model = runs / model
    read_in_a_child(model, seconds=run_wait)
    done = export_model(
        model,
        output=output,
        allow_lambda=allow_lambda,
        code=code,
        timeout=timeout,
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
