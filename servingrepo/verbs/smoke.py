"""smoke: prove a version again, or an export that is not published. Nothing is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.repository.proving import Trial, prove, smoking
from servingrepo.repository.repository import need_version, utc_now
from servingrepo.repository.usage import using
from servingrepo.runs import scan_run
from servingrepo.savedmodel import inspect_export, refuse_defects
from servingrepo.savedmodel.reading import ANYWHERE
from servingrepo.storage.progress import Notice, unheard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.repository.records import Proof
    from servingrepo.repository.repository import Repository
    from servingrepo.servers.engines.choice import Engine
    from servingrepo.smoke import SmokeCase


def smoke_version(
    repo: Repository,
    model: str,
    version: int,
    *,
    engine: Engine,
    cases: Sequence[SmokeCase],
    timeout: float,
    notice: Notice = unheard,
) -> Proof:
    """Serve a published version in place, under its name and number, and send it requests.

    Raises:
        NoSuchVersion, DamagedExport, UnsupportedExport: It cannot be tried.
        LoadFailed and other errors of the engine: It cannot be served.
    """
    need_version(repo, model, version)
    with smoking(repo, model, version, engine) as txid, using(repo, model, version):
        need_version(repo, model, version)
        export = repo.layout.version(model, version)
        inspection = inspect_export(export, boundary=ANYWHERE)
        refuse_defects(inspection, export)
        return prove(
            engine,
            Trial(
                model=model,
                version=version,
                export=export,
                inspection=inspection,
                cases=tuple(cases),
                txid=txid,
            ),
            timeout=timeout,
            time=repo.now(),
            notice=notice,
        )


def smoke_path(
    run: Path,
    *,
    engine: Engine,
    cases: Sequence[SmokeCase],
    timeout: float,
    notice: Notice = unheard,
) -> Proof:
    """Serve the export of a run, as version 1 of a model named `model`, and send it requests.

    Raises:
        NoSavedModel, AmbiguousExport, DamagedExport, UnsupportedExport: It cannot be tried.
        LoadFailed and other errors of the engine: It cannot be served.
    """
    scan = scan_run(run)
    export = Path(scan.export)
    inspection = inspect_export(export, boundary=Path(scan.run))
    refuse_defects(inspection, export)
    return prove(
        engine,
        Trial(model="model", version=1, export=export, inspection=inspection, cases=tuple(cases)),
        timeout=timeout,
        time=utc_now().isoformat(timespec="milliseconds"),
        notice=notice,
    )
