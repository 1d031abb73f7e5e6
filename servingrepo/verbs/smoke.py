"""smoke: proves a version again, or an export that is not published. It records nothing in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    BadCase,
    EngineUnavailable,
    LoadFailed,
    ServerDied,
    ServerTimeout,
)
from servingrepo.repository.proving import Trial, alone_on_server, prove, smoking
from servingrepo.repository.records import Proof
from servingrepo.repository.references import parse_reference, resolve
from servingrepo.repository.repository import need_version, utc_now
from servingrepo.repository.version_lock import using
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.scan import list_run, scan_run
from servingrepo.savedmodel.inspection import inspect_export, refuse_defects
from servingrepo.savedmodel.reading import ANYWHERE
from servingrepo.servers.engines.choice import choose_engine
from servingrepo.servers.engines.options import EngineChoice
from servingrepo.smoke.report import is_enough
from servingrepo.smoke.writing import Sink
from servingrepo.storage.disk import Disk
from servingrepo.texts import as_path, is_path, plural
from servingrepo.verbs.cases import cases_beside, cases_in_run
from servingrepo.verbs.engines import engine_for

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository
    from servingrepo.servers.engines.choice import Engine
    from servingrepo.verbs.options import SmokeOptions


def smoke(repo: Repository, subject: str | Path, options: SmokeOptions) -> Proof:
    """Serve a version, or an export at any path, and send it requests. This records nothing.

    The proof may hold failures: `servingrepo.smoke.judge` decides whether it is enough.

    Raises:
        LoadFailed, ServerDied, ServerTimeout, EngineUnavailable: The engine could not serve it.
        BadCase: A file of cases cannot be used.
    """
    engine = engine_for(repo, options.engine)
    if is_path(subject):
        with alone_on_server(repo, engine, options.notice):
            return smoke_path(as_path(subject, "path"), engine, options, disk=repo.disk)
    reference = parse_reference(str(subject))
    return smoke_version(repo, reference.model, resolve(repo, reference), engine, options)


class OnServer(msgspec.Struct, frozen=True, kw_only=True):
    """The result on one server: the proof, or the error that kept the server from one.

    Attributes:
        server: The server as it was named: an image, or an engine.
        proof: The proof; None if the server could not serve the export.
        error: The slug of the error; empty if there is a proof.
        reason: The server's reason.
    """

    server: str
    proof: Proof | None = None
    error: str = ""
    reason: str = ""

    def enough(self, *, strict: bool) -> bool:
        """Tell whether this server proves the export."""
        return self.proof is not None and is_enough(self.proof.report, strict=strict)


class Servers(msgspec.Struct, frozen=True, kw_only=True):
    """The results on several servers, in the order in which they were named."""

    subject: str
    rows: tuple[OnServer, ...]


def smoke_on_servers(
    repo: Repository | None, subject: str | Path, options: SmokeOptions
) -> Servers:
    """Smoke-test a version or an export on the engine and on each server of `also`, one after the other.

    A server that cannot serve it has a row with its reason, and the next one is tried. Without a repository the
    subject is a path.

    Raises:
        NoSuchVersion, NoSavedModel, DamagedExport and similar errors: There is nothing to test.
        BadCase: A file of cases cannot be used.
    """
    first = options.engine if isinstance(options.engine, EngineChoice) else EngineChoice()
    rows = []
    for choice in (first, *(engine_named(one, first) for one in options.also)):
        name = choice.image if choice.name == "docker" and choice.image else choice.name
        one = msgspec.structs.replace(options, engine=choice, also=())
        try:
            if repo is None:
                proof = smoke_path(as_path(subject, "path"), choose_engine(choice), one)
            else:
                proof = smoke(repo, subject, one)
        except (LoadFailed, ServerDied, ServerTimeout, EngineUnavailable) as error:
            rows.append(OnServer(server=name, error=error.slug, reason=error.message))
        else:
            rows.append(OnServer(server=name, proof=proof))
    return Servers(subject=str(subject), rows=tuple(rows))


def engine_named(text: str, like: EngineChoice) -> EngineChoice:
    """Return the engine that a text names; a text that names none is the image of a container."""
    kind = text.partition(":")[0]
    if text in {"auto", "docker", "embedded"} or kind in {"binary", "remote"}:
        return msgspec.structs.replace(like, name=text)
    return msgspec.structs.replace(like, name="docker", image=text)


def smoke_version(
    repo: Repository, model: str, version: int, engine: Engine, options: SmokeOptions
) -> Proof:
    """Serve a published version in place, under its name and number, and send it requests.

    Raises:
        NoSuchVersion, DamagedExport, UnsupportedExport: The version is missing or not a whole export.
        LoadFailed and other errors of the engine: The engine could not serve it.
    """
    need_version(repo, model, version)
    with (
        smoking(repo, model, version, engine, options.notice) as txid,
        using(repo, model, version),
    ):
        need_version(repo, model, version)
        export = repo.layout.version(model, version)
        inspection = inspect_export(export, boundary=ANYWHERE)
        refuse_defects(inspection, export)
        sink = _sink(options)
        proof = prove(
            engine,
            Trial(
                model=model,
                version=version,
                export=export,
                inspection=inspection,
                cases=cases_beside(repo, model, options.smoke_cases),
                txid=txid,
            ),
            timeout=options.timeout,
            time=repo.now(),
            notice=options.notice,
            sink=sink,
        )
    _write(sink, proof, options, repo.disk)
    return proof


def smoke_path(
    run: Path, engine: Engine, options: SmokeOptions, *, disk: Disk | None = None
) -> Proof:
    """Serve the export of a run, as version 1 of a model named `model`, and send it requests.

    Raises:
        NoSavedModel, AmbiguousExport, DamagedExport, UnsupportedExport: The run has no whole export, or several.
        LoadFailed and other errors of the engine: The engine could not serve it.
    """
    listing = list_run(run)
    scan = scan_run(run, seen=listing)
    export = Path(scan.export)
    inspection = inspect_export(export, boundary=Path(scan.run))
    refuse_defects(inspection, export)
    sink = _sink(options)
    proof = prove(
        engine,
        Trial(
            model="model",
            version=1,
            export=export,
            inspection=inspection,
            cases=options.smoke_cases or cases_in_run(listing, FilesRead()),
        ),
        timeout=options.timeout,
        time=utc_now().isoformat(timespec="milliseconds"),
        notice=options.notice,
        sink=sink,
    )
    _write(sink, proof, options, disk or Disk())
    return proof


def _sink(options: SmokeOptions) -> Sink | None:
    """Return what takes the requests of the test, if they are to be written."""
    return Sink(answers=options.write_answers is not None) if options.written is not None else None


def _write(sink: Sink | None, proof: Proof, options: SmokeOptions, disk: Disk) -> None:
    """Write the requests of a test that was passed.

    Raises:
        BadCase: A case cannot be written; nothing was.
        StorageFailed, NoSpace, NoPermission: The file cannot be written.
    """
    path = options.written
    if sink is None or path is None:
        return
    if not is_enough(proof.report, strict=False):
        options.notice(f"{path} was not written, because the test was not passed")
        return
    if sink.lacking:
        raise BadCase(
            f"{path} was not written, because cases cannot be written as JSON",
            problems=sink.lacking[:100],
            hint="leave them out",
        )
    disk.replace_file(path, sink.document(path.name), step="cases")
    options.notice(f"{path} has {plural(sink.count, 'case', 'cases')} now")
