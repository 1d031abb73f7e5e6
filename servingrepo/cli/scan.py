"""servingrepo scan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from servingrepo.cli.app import App, Bar
from servingrepo.cli.command import command as make
from servingrepo.cli.compatibility import demand_lines
from servingrepo.cli.fingerprints import fingerprint_lines
from servingrepo.cli.kinds import RunPath
from servingrepo.cli.mounted import RunPlace, read_in_a_child
from servingrepo.cli.options import takes
from servingrepo.cli.signatures import signature_lines
from servingrepo.texts import sized
from servingrepo.verbs.options import ScanOptions, optional_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.runs.measurements import Measured, Measurement, Point

_MOST = 12


@make(
    "scan",
    examples="""
    servingrepo scan runs/2026_05_10_baseline
    servingrepo scan runs/estimator --saved-model export/best/1646034756""",
)
@click.argument("run", type=RunPath(path_type=Path))
@takes(options=ScanOptions, place=RunPlace)
@click.pass_obj
def command(app: App, run: Path, options: ScanOptions, place: RunPlace) -> None:
    """Show the SavedModel of a run directory: its signatures, its problems, and the other files of the run.

    Exit code 0 means that `promote` would accept it, as far as that is known without a smoke test and without the
    model: operations that reach out need --allow-op, and the model's clients may rely on other signatures.
    """
    from servingrepo.runs.run import read_run, run_directory

    run = place.runs / run
    read_in_a_child(run, seconds=options.run_wait)
    with run_directory(run) as folder:
        with Bar(app, f"reading events in {run}") as bar:
            read = read_run(
                folder,
                saved_model=optional_path(options.saved_model),
                unpacked=folder != run,
                sizes=lambda events, _: bar.expect(events),
                progress=bar.advance,
            )
        found, inspection = read.scan, read.inspection
        app.result(
            {
                "scan": found,
                "inspection": inspection,
                "measured": read.measured,
                "doubts": read.staleness,
                "files": len(read.tree.files),
                "size": read.tree.size,
            },
            [
                f"SavedModel    {found.export.replace(str(folder), str(run), 1)} ({found.kind})",
                f"written by    TensorFlow {inspection.tensorflow_version or 'unknown'}",
                f"size          {sized(read.tree.size)} in {len(read.tree.files)} files",
                *fingerprint_lines(inspection.fingerprint),
                *signature_lines(inspection.signatures),
                *demand_lines(inspection.demands),
                *(f"note          {note}" for note in inspection.notes),
                *(f"also there    {other}" for other in found.others),
                *(f"note          {line}" for line in read.staleness),
                *_event_lines(read.measured),
                *_measured_lines(read.measured.measurements, brief=not app.verbosity),
                *(
                    []
                    if found.complete
                    else ["note          the run is so large that only a part was read"]
                ),
                "not checked   the bytes of variables and assets (servingrepo verify and promote read them)",
                f"next          servingrepo promote {run} --model NAME",
            ],
            bare=found.export,
        )


def _event_lines(measured: Measured) -> Iterator[str]:
    """Yield the problems of event files and metrics."""
    for run in measured.event_runs:
        for problem in run.problems:
            yield f"note          {problem}"
    for problem in measured.problems:
        yield f"note          {problem}"


def _measured_lines(measurements: Sequence[Measurement], *, brief: bool) -> Iterator[str]:
    """Yield a line for each name with its last, lowest and highest value; at most a dozen lines if `brief`."""
    shown = measurements[:_MOST] if brief else measurements
    for one in shown:
        ends = ""
        if one.lowest is not None and one.highest is not None and one.count > 1:
            ends = f"; lowest {_value(one.lowest)}, highest {_value(one.highest)}"
        yield f"measured      {one.name}: last {_value(one.last)}{ends}"
    if len(shown) < len(measurements):
        yield f"measured      and {len(measurements) - len(shown)} more: -v shows them"


def _value(point: Point) -> str:
    return f"{point.value:.6g} (step {point.step})"
