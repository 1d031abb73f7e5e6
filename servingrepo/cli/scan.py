"""servingrepo scan."""

from __future__ import annotations

from pathlib import Path

import click

from servingrepo.cli.app import App, Bar, sized
from servingrepo.cli.command import command as make
from servingrepo.cli.fingerprints import fingerprint_lines
from servingrepo.cli.guards import demand_lines
from servingrepo.cli.measured import event_lines, measured_lines
from servingrepo.cli.mounted import read_in_a_child, run_options
from servingrepo.cli.paths import RunPath
from servingrepo.cli.signatures import signature_lines


@make(
    "scan",
    examples="""
    servingrepo scan runs/2026_05_10_baseline
    servingrepo scan runs/estimator --saved-model export/best/1646034756""",
)
@click.argument("run", type=RunPath(path_type=Path))
@click.option(
    "--saved-model",
    type=RunPath(path_type=Path),
    help="Which SavedModel of the run is meant, as a path in it.",
)
@run_options
@click.pass_obj
def command(app: App, run: Path, saved_model: Path | None, runs: Path, run_wait: float) -> None:
    """Say which SavedModel a run directory holds, what it promises, what is wrong with it, and what else lies there.

    Exit code 0 means that `promote` would accept it as far as can be told without running it and without knowing
    the model: operations that reach out need --allow-op, and the model's clients may rely on other signatures.
    """
    from servingrepo.runs import scan_run
    from servingrepo.runs.archives import run_directory
    from servingrepo.runs.doubts import doubts_of
    from servingrepo.runs.measure import measure, size_of_events
    from servingrepo.runs.mlflow import read_mlflow
    from servingrepo.runs.scan import look_at_run
    from servingrepo.savedmodel import inspect_export
    from servingrepo.storage.tree import read_tree
    from servingrepo.verbs.promote import refuse_defects

    run = runs / run
    read_in_a_child(run, seconds=run_wait)
    with run_directory(run) as place:
        seen = look_at_run(place)
        found = scan_run(place, saved_model=saved_model, seen=seen, unpacked=place != run)
        export = Path(found.export)
        inspection = inspect_export(export, boundary=Path(found.run))
        refuse_defects(inspection, export)
        tree = read_tree(export, boundary=Path(found.run))
        with Bar(app, f"reading events in {run}", lambda: size_of_events(seen)) as bar:
            measured = measure(seen, read_mlflow(seen.run), progress=bar.advance)
        doubts = doubts_of(found, seen, measured)
        app.result(
            {
                "scan": found,
                "inspection": inspection,
                "measured": measured,
                "doubts": doubts,
                "files": len(tree.files),
                "size": tree.size,
            },
            [
                f"SavedModel    {found.export.replace(str(place), str(run), 1)} ({found.kind})",
                f"written by    TensorFlow {inspection.tensorflow_version or 'unknown'}",
                f"size          {sized(tree.size)} in {len(tree.files)} files",
                *fingerprint_lines(inspection.fingerprint),
                *signature_lines(inspection.signatures),
                *demand_lines(inspection.demands),
                *(f"note          {note}" for note in inspection.notes),
                *(f"also there    {other}" for other in found.others),
                *(f"note          {doubt}" for doubt in doubts),
                *event_lines(measured),
                *measured_lines(measured.measurements, brief=not app.verbosity),
                *(
                    []
                    if found.complete
                    else ["note          the run is so large that only a part was looked at"]
                ),
                "not checked   the bytes of variables and assets (servingrepo verify and promote read them)",
                f"next          servingrepo promote {run} --model NAME",
            ],
            bare=found.export,
        )
