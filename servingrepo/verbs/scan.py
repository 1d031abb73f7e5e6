"""scan, measure, export: find a run's SavedModel, read its measurements, make a SavedModel of its Keras model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.runs.export import export_model
from servingrepo.runs.measure import measure_run
from servingrepo.runs.mounts import refuse_hung
from servingrepo.runs.run import run_directory
from servingrepo.runs.scan import scan_run
from servingrepo.texts import as_path
from servingrepo.verbs.options import optional_path

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository
    from servingrepo.runs.export import Exported
    from servingrepo.runs.measurements import Measured
    from servingrepo.runs.values import RunScan
    from servingrepo.verbs.options import ExportOptions, MeasureOptions, ScanOptions


def scan(_repo: Repository, run: str | Path, options: ScanOptions) -> RunScan:
    """Find the SavedModel of a run directory or of its archive; see `servingrepo scan`.

    Paths into an archive do not exist afterwards. If the run lies on a network file system, that may take `run_wait`
    seconds to answer before anything is read. If it hangs later, this call hangs too: only the commands can leave a
    hung file system behind.

    Raises:
        StorageHung: The network file system did not answer.
    """
    given = as_path(run, "run")
    refuse_hung(given, seconds=options.run_wait)
    with run_directory(given) as place:
        chosen = optional_path(options.saved_model)
        return scan_run(place, saved_model=chosen, unpacked=place != given)


def measure(_repo: Repository, run: str | Path, options: MeasureOptions) -> Measured:
    """Read the measurements of a run: TensorBoard's scalars, and metrics in JSON and CSV; see `servingrepo scan`.

    Raises:
        StorageHung: The run lies on a network file system that does not answer; see `scan`.
    """
    given = as_path(run, "run")
    refuse_hung(given, seconds=options.run_wait)
    return measure_run(given, progress=options.progress)


def export(repo: Repository, model: str | Path, options: ExportOptions) -> Exported:
    """Make a SavedModel from a Keras model file, or from a run that has one; see `servingrepo export`."""
    given = as_path(model, "model")
    refuse_hung(given, seconds=options.run_wait)
    return export_model(
        given,
        output=optional_path(options.output),
        allow_lambda=options.allow_lambda,
        code=tuple(map(Path, options.code)),
        timeout=options.timeout,
        disk=repo.disk,
    )
