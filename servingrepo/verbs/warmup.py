"""warmup: writes a run's warm-up file, which servers replay before a version becomes available.

The file is written only after a server has loaded a copy of the export with it. So the run gets a file that works, or
none. A promotion then publishes it as a part of the export.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import UnsafeExport, UsageError
from servingrepo.repository.proving import Trial, prove
from servingrepo.repository.records import Proof
from servingrepo.repository.repository import utc_now
from servingrepo.runs.mounts import refuse_hung
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.scan import list_run, scan_run
from servingrepo.savedmodel.inspection import inspect_export, refuse_defects
from servingrepo.savedmodel.warmup import FILE, SLUG
from servingrepo.smoke.report import judge
from servingrepo.smoke.warmup_file import warmup_file
from servingrepo.storage.beneath import open_plain
from servingrepo.storage.copying import copy_tree
from servingrepo.storage.disk import Disk, storage_errors
from servingrepo.storage.reading import closed_after
from servingrepo.storage.scratch import PREFIX, scratch
from servingrepo.storage.tree import read_tree
from servingrepo.texts import as_path
from servingrepo.verbs.cases import cases_in_run
from servingrepo.verbs.engines import engine_for
from servingrepo.verbs.options import optional_path

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository
    from servingrepo.smoke.files import Cases
    from servingrepo.verbs.options import WarmupOptions

__all__ = ["WarmedUp", "warmup"]


class WarmedUp(msgspec.Struct, frozen=True, kw_only=True):
    """A warm-up file in a run: its path, its records and bytes, and the proof that a server replays it."""

    path: str
    records: int
    size: int
    proof: Proof | None
    dry_run: bool


def warmup(repo: Repository, run: str | Path, options: WarmupOptions) -> WarmedUp:
    """Write the cases as the warm-up file of a run's SavedModel, after a server has replayed them.

    Without named cases, those in the folder `smoke` of the run are taken.

    Raises:
        NoSavedModel, AmbiguousExport, DamagedExport, UnsupportedExport: The run has no usable export.
        UsageError: The export has a warm-up file, and it is not to be replaced.
        BadCase: The cases make no warm-up file.
        LoadFailed, SmokeFailed and other errors of the engine: The server does not replay it.
        StorageFailed, NoSpace, NoPermission, UnsafeExport: The file cannot be written.
    """
    given = as_path(run, "run")
    refuse_hung(given, seconds=options.run_wait)
    listing = list_run(given)
    scan = scan_run(given, saved_model=optional_path(options.saved_model), seen=listing)
    export, boundary = Path(scan.export), Path(scan.run)
    path = export / FILE
    if os.path.lexists(path) and not options.replace:
        raise UsageError(
            f"{path} is there already", hint="give --replace to write another one in its place"
        )
    found = inspect_export(export, boundary=boundary)
    # What is wrong with the file that is replaced says nothing of the new one.
    others = tuple(one for one in found.defects if one.slug != SLUG)
    refuse_defects(msgspec.structs.replace(found, defects=others), export)
    cases = options.smoke_cases or cases_in_run(listing, FilesRead())
    data, records = warmup_file(cases.of(export), found)
    done = WarmedUp(
        path=str(path), records=records, size=len(data), proof=None, dry_run=options.dry_run
    )
    if options.dry_run:
        return done
    with scratch(Path(tempfile.gettempdir()), PREFIX) as place:
        copy = place / "1"
        copy_tree(read_tree(export, boundary=boundary), copy, disk=Disk())
        (copy / FILE).parent.mkdir(exist_ok=True)
        (copy / FILE).write_bytes(data)
        proof = _replay(repo, copy, cases, options)
    _put(repo.disk, export, data)
    return msgspec.structs.replace(done, proof=proof)


def _replay(repo: Repository, copy: Path, cases: Cases, options: WarmupOptions) -> Proof:
    """Let a server load a copy of the export, which replays the file, and send it the same cases.

    Raises:
        LoadFailed, SmokeFailed and other errors of the engine: The server does not replay it.
    """
    inspection = inspect_export(copy)
    refuse_defects(inspection, copy)
    proof = prove(
        engine_for(repo, options.engine),
        Trial(
            model="model",
            version=1,
            export=copy,
            inspection=inspection,
            cases=cases.of(copy),
        ),
        timeout=options.timeout,
        time=utc_now().isoformat(timespec="milliseconds"),
        notice=options.notice,
    )
    judge(proof.report, strict=False)
    return proof


def _put(disk: Disk, export: Path, data: bytes) -> None:
    """Write the file into the export. No link on the way is followed, whoever puts it there meanwhile.

    Raises:
        UnsafeExport: The folder is a link, or no folder.
        StorageFailed, NoSpace, NoPermission: The disk refuses.
    """
    target = export / FILE
    above = os.path.realpath(export)
    folder = f"{above}/{target.parent.name}"
    with storage_errors("write", target):
        with suppress(FileExistsError), closed_after(open_plain(above)) as opened:
            os.mkdir(target.parent.name, dir_fd=opened)
        if os.path.islink(folder) or not os.path.isdir(folder):  # noqa: PTH112, PTH114 - as above
            raise UnsafeExport(
                f"{target.parent} is a link, or no directory: nothing is written there",
                hint="make it a directory of the export",
            )
        with closed_after(open_plain(folder)) as within:
            place = Path(f"/proc/self/fd/{within}") / target.name
            disk.replace_file(place, data, step="warmup", shown=target)
