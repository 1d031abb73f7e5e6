"""A run that is read once into one value: its export, its other files, its measurements, and the files read.

The checks of a promotion, its copy and its record all use this value, so that they are about the same run.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ServingRepoError
from servingrepo.runs.listing import Listing
from servingrepo.runs.measure import measure, size_of_events
from servingrepo.runs.measurements import Measured
from servingrepo.runs.mlflow import MlflowRun, read_mlflow
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.scan import list_run, scan_run
from servingrepo.runs.staleness import staleness_of
from servingrepo.runs.values import RunScan
from servingrepo.savedmodel.inspection import Inspection, inspect_export, refuse_defects
from servingrepo.savedmodel.variables import Variables, read_variables
from servingrepo.storage.progress import Progress, silent
from servingrepo.storage.tree import SourceTree, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Run", "read_run", "run_directory"]

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


@contextmanager
def run_directory(run: Path) -> Iterator[Path]:
    """Give the directory of a run for the block. An archive is unpacked first.

    Errors of the block name the archive, because the unpacked directory is gone by then.

    Raises:
        UnsafeExport, NoSpace, StorageFailed: The archive cannot be unpacked.
    """
    if not run.name.endswith(_ARCHIVES) or not run.is_file():
        yield run
        return
    from servingrepo.runs.archives import unpacked  # 5 ms that a directory need not pay

    with unpacked(run) as place:
        try:
            yield place
        except ServingRepoError as error:
            raise error.renamed(str(place), str(run)) from error.__cause__


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run directory with a SavedModel that can be served, as far as its files tell."""

    listing: Listing
    """The names in the run."""
    scan: RunScan
    tree: SourceTree
    """The export's files, as they are to be copied."""
    variables: Variables
    """The index of the export's variables."""
    inspection: Inspection
    tracked: MlflowRun | None
    """The MLflow run; None if MLflow did not track it."""
    measured: Measured
    staleness: tuple[str, ...]
    """Why the export may not be the one that training ended with."""
    reads: FilesRead
    """The files that were read, with their state at that time."""

    @property
    def export(self) -> Path:
        """The export's directory in the run."""
        return Path(self.scan.export)


def read_run(
    run: Path,
    *,
    saved_model: Path | None = None,
    unpacked: bool = False,
    sizes: Callable[[int, int], None] | None = None,
    progress: Progress = silent,
) -> Run:
    """Read a run: its names once, and each of its files at most once. Weights are not read, and nothing is written.

    Args:
        run: The run directory; a link to one is followed.
        saved_model: The SavedModel to take, below the run or absolute, when the run has several.
        unpacked: The run was unpacked from an archive.
        sizes: Called once the export has passed its checks, with the bytes of event files and those of the export.
        progress: Called with the bytes of event files as they are read.

    Raises:
        NoSavedModel, AmbiguousExport, UsageError: There is no SavedModel, or none can be chosen; see `scan_run`.
        DamagedExport, UnsupportedExport, UnsafeExport: The export cannot be served.
        NoPermission, StorageFailed, SourceChanged: The run cannot be read.
    """
    listing = list_run(run)
    scan = scan_run(run, saved_model=saved_model, seen=listing, unpacked=unpacked)
    export, boundary = Path(scan.export), Path(scan.run)
    tree = read_tree(export, boundary=boundary)
    variables = read_variables(export, boundary=boundary)
    inspection = inspect_export(export, boundary=boundary, variables=variables)
    refuse_defects(inspection, export)
    if sizes is not None:
        sizes(size_of_events(listing), tree.size)
    reads = FilesRead()
    tracked = read_mlflow(listing.run, reads=reads)
    measured = measure(listing, tracked, reads=reads, progress=progress)
    return Run(
        listing=listing,
        scan=scan,
        tree=tree,
        variables=variables,
        inspection=inspection,
        tracked=tracked,
        measured=measured,
        staleness=staleness_of(scan, listing, measured),
        reads=reads,
    )
