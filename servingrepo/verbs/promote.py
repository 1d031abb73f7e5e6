"""promote: from a run directory to a proven, published and served version.

The order is the guarantee: reserve, stage, prove the staged copy, record, C1 (the version exists), C2 (it is
served). Killed anywhere, the repository is as before or after a commit point.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from servingrepo.errors import (
    DamagedExport,
    NoSavedModel,
    ServingRepoError,
    SourceChanged,
    UnsafeExport,
    UnsupportedExport,
)
from servingrepo.fleet.plans import plan_serve
from servingrepo.modelconfig import check_name
from servingrepo.repository.proving import prove, refuse_lacking, server_of
from servingrepo.repository.publication import (
    choose_number,
    may_be_known,
    refuse_flat_model,
    reserve,
    stage,
)
from servingrepo.repository.records import Guard, Proof, Source, VersionRecord
from servingrepo.repository.repository import load_state, me
from servingrepo.repository.served import read_config_of, read_own_config, served_versions
from servingrepo.runs.mlflow import read_mlflow
from servingrepo.runs.reading import FilesRead
from servingrepo.runs.scan import look_at_run, scan_run
from servingrepo.savedmodel import (
    Inspection,
    TensorCheck,
    Variables,
    inspect_export,
    read_variables,
)
from servingrepo.savedmodel.wording import some
from servingrepo.smoke import check_cases, judge
from servingrepo.storage.beneath import open_beneath
from servingrepo.storage.copying import hash_source, need_space
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.hashing import content_digest
from servingrepo.storage.progress import Notice, Progress, Told, silent, unheard, untold
from servingrepo.storage.tree import SourceTree, read_tree
from servingrepo.verbs.committing import commit, pass_release_guards, serve_again
from servingrepo.verbs.gating import Gated, pass_gates
from servingrepo.verbs.overtaking import newest_event
from servingrepo.verbs.reproving import find_unproven, prove_again
from servingrepo.verbs.tracing import place_of, trace
from servingrepo.verbs.values import Options, Promotion

if TYPE_CHECKING:
    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.publication import Reservation
    from servingrepo.repository.repository import Repository
    from servingrepo.runs import RunScan
    from servingrepo.runs.look import Look
    from servingrepo.servers.engines.choice import Engine
    from servingrepo.storage.manifest import Manifest


def promote(
    repo: Repository,
    run: Path,
    *,
    model: str,
    engine: Engine | None,
    options: Options,
    progress: Progress = silent,
    notice: Notice = unheard,
    run_read: Told = untold,
) -> Promotion:
    """Publish the SavedModel of a run as the next version of a model, proven, and serve it.

    `run_read` is told when nothing more is read from the run.

    Raises:
        NoSavedModel, AmbiguousExport, DamagedExport, UnsupportedExport, UnsafeExport: The run is not fit.
        StaleRun: It is strict, and the run is stale or mixed.
        GateFailed: The run did not measure what a gate asks for.
        BreakingChange, UnsafeOperation, BadContract: A gate is shut, and was not opened.
        NumberUsed, VersionBad, ConfigEdited, ConfigInvalid, RepositoryDamaged: The repository says no; so it does
            where the model's live versions are elsewhere.
        LoadFailed, SmokeFailed and other errors of the engine: The staged copy did not prove itself.
        SourceChanged: Somebody wrote into the run.
        NoSpace, NoPermission, StorageFailed: The disk says no.
        EndpointUnreachable, SwitchFailed: The version is published, but the endpoints did not follow.
    """
    check_name(model)
    refuse_flat_model(repo, model)
    read_config_of(repo, model)  # what is wrong with it is to be heard of before a long copy
    seen = look_at_run(run)
    unpacked = bool(options.context.archive)
    scan = scan_run(run, saved_model=options.saved_model, seen=seen, unpacked=unpacked)
    export = Path(scan.export)
    tree = read_tree(export, boundary=Path(scan.run))
    variables = read_variables(export, boundary=Path(scan.run))
    inspection = inspect_export(export, boundary=Path(scan.run), variables=variables)
    refuse_defects(inspection, export)
    check_cases(options.cases, inspection)  # before a long copy
    reads = FilesRead()
    gated = _judge_run(repo, model, scan, options, seen=seen, reads=reads, progress=progress)
    if may_be_known(repo, model, tree):
        digest = content_digest(hash_source(tree))
        unproven = find_unproven(repo, model, digest, options)
        proof = None
        if unproven is not None and engine is not None:
            proof = prove_again(repo, unproven, inspection, options, engine=engine, notice=notice)
        again = serve_again(repo, model, digest, scan, options, run_read=run_read)
        if again is not None:
            return msgspec.structs.replace(
                again,
                gates=gated.verdicts,
                doubts=gated.doubts,
                unread=gated.unread,
                proof=proof,
                would_prove=options.dry_run and unproven is not None,
            )
    config = read_own_config(repo)
    guard = pass_release_guards(repo, model, inspection, config, options)
    if options.dry_run:
        number = choose_number(repo, model, options.version)
        need_space(tree, repo.layout.models)
        promised = _promised(
            repo, scan, tree, model=model, number=number, config=config, options=options
        )
        return msgspec.structs.replace(
            promised,
            gates=gated.verdicts,
            doubts=gated.doubts,
            unread=gated.unread,
            guard=guard,
        )
    smoking = engine if options.smoke else None
    if smoking is not None:
        refuse_lacking(smoking.name, inspection)  # before a long copy
    known = newest_event(repo, model)
    with reserve(
        repo,
        model=model,
        version=options.version,
        engine=smoking.name if smoking is not None else "",
        smoked_on=server_of(smoking),
        endpoints=tuple(map(str, options.endpoints)) if options.serve is not False else (),
    ) as place:
        tensors = variables.tensors()
        watch = tensors.watch if tensors is not None else None
        manifest = stage(repo, place, tree, progress=progress, watch=watch)
        _same_graph(inspection, variables, manifest)
        checked = tensors.result() if tensors is not None else None
        if checked is not None:
            refuse_defects(msgspec.structs.replace(inspection, defects=checked.defects()), export)
        proof = None
        if smoking is not None:
            proof = _prove(repo, place, smoking, inspection, options, notice=notice)
        _same_run(scan, reads)
        repo.disk.step("proven", place.export)
        record = _record(
            repo,
            place,
            scan=scan,
            manifest=manifest,
            inspection=inspection,
            tensors=checked,
            proof=proof,
            gated=gated,
            options=options,
            guard=guard,
        )
        run_read()
        return commit(repo, place, record, scan, options, inspection=inspection, known=known)


def _judge_run(
    repo: Repository,
    model: str,
    scan: RunScan,
    options: Options,
    *,
    seen: Look,
    reads: FilesRead,
    progress: Progress,
) -> Gated:
    """Read what the run's files say, once: what gates are held against is what the record tells of."""
    tracked = read_mlflow(seen.run, reads=reads)
    gated = pass_gates(
        repo,
        model,
        scan,
        options.gates,
        seen=seen,
        tracked=tracked,
        reads=reads,
        strict=options.strict,
        progress=progress,
    )
    origin = trace(seen, tracked, options.context, reads=reads)
    return msgspec.structs.replace(gated, origin=origin)


def _prove(
    repo: Repository,
    place: Reservation,
    engine: Engine,
    inspection: Inspection,
    options: Options,
    *,
    notice: Notice,
) -> Proof:
    """Serve the staged copy and send it requests.

    Raises:
        LoadFailed, SmokeFailed and other errors of the engine: It did not prove itself.
    """
    proof = prove(
        engine,
        model=place.model,
        version=place.version,
        export=place.export,
        inspection=inspection,
        cases=options.cases,
        timeout=options.timeout,
        staged=True,
        time=repo.now(),
        txid=place.txid,
        notice=notice,
    )
    judge(proof.report, strict=options.strict)
    return proof


def _same_run(scan: RunScan, reads: FilesRead) -> None:
    """See that the files that the run was judged by are what they were.

    Raises:
        SourceChanged: One is not.
    """
    changed = reads.changed()
    if changed:
        raise SourceChanged(
            f"{scan.run} changed while it was copied and tried: {some(changed)}",
            problems=changed if len(changed) > 1 else (),
            hint="promote again when whatever writes there has finished: it is judged by these files",
            details={"files": list(changed)},
        )


def refuse_defects(inspection: Inspection, export: Path) -> None:
    """Refuse an export that is known to be bad before any server starts, with all that is wrong.

    Raises:
        NoSavedModel, DamagedExport, UnsupportedExport, UnsafeExport: By the worst defect.
    """
    if not inspection.defects:
        return
    with storage_errors("read", export):
        for name in ("saved_model.pb", "saved_model.pbtxt", "variables/variables.index"):
            try:
                os.close(open_beneath(f"{export}/{name}", os.path.realpath(export)))
            except PermissionError:
                raise
            except OSError:
                continue  # that is among the defects
    kinds: dict[str, type[ServingRepoError]] = {
        "missing": NoSavedModel,
        "damaged": DamagedExport,
        "unsupported": UnsupportedExport,
        "unsafe": UnsafeExport,
    }
    worst = inspection.defects[0]
    lines = [f"{defect.slug}: {defect.message}" for defect in inspection.defects]
    raise kinds.get(worst.kind, DamagedExport)(
        f"{export} cannot be promoted: {worst.message}",
        problems=lines if len(lines) > 1 else (),
        hint=worst.hint,
        details={"defects": [defect.slug for defect in inspection.defects]},
    )


def _same_graph(looked_at: Inspection, variables: Variables, copied: Manifest) -> None:
    """See that the graph and the index that were judged are the ones that were copied, by their hashes.

    That no file changed between the look and the copy, the copy sees by sizes and times; these two decide what a
    server does, so that nobody is trusted with their times.

    Raises:
        SourceChanged: One is not.
    """
    judged = {looked_at.file: looked_at.digest}
    if variables.data is not None:
        judged["variables/variables.index"] = blake3(variables.data).hexdigest()
    hashes = {file.path: file.hash for file in copied.files}
    changed = [path for path, digest in judged.items() if hashes.get(path) != digest]
    if changed:
        raise SourceChanged(
            f"{Path(looked_at.path, changed[0])} changed between the look at it and the copy",
            hint="promote again when whatever writes there has finished",
        )


def _record(
    repo: Repository,
    place: Reservation,
    *,
    scan: RunScan,
    manifest: Manifest,
    inspection: Inspection,
    tensors: TensorCheck | None,
    proof: Proof | None,
    gated: Gated,
    options: Options,
    guard: Guard,
) -> VersionRecord:
    owner = me()
    return VersionRecord(
        model=place.model,
        version=place.version,
        txid=place.txid,
        created=repo.now(),
        user=owner.user,
        host=owner.host,
        message=options.message,
        source=_source(scan, options),
        manifest=manifest,
        digest=content_digest(manifest),
        size=manifest.size,
        tensorflow=inspection.tensorflow_version,
        signatures=inspection.signatures,
        fingerprint=inspection.fingerprint,
        tensors=tensors,
        proofs=(proof,) if proof is not None else (),
        measured=gated.numbers,
        gates=gated.verdicts,
        doubts=gated.doubts,
        unread=gated.unread,
        origin=gated.origin,
        guard=guard,
        demands=inspection.demands,
    )


def _source(scan: RunScan, options: Options) -> Source:
    return Source(
        run=_recordable(place_of(scan.run, scan, options.context)),
        export=_recordable(place_of(scan.export, scan, options.context)),
        kind=scan.kind,
        provenance={key: _recordable(value) for key, value in scan.provenance.items()},
    )


def _recordable(path: str) -> str:
    """Return a path as JSON can hold it: bytes that are not UTF-8 (PEP 383) become escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def _promised(
    repo: Repository,
    scan: RunScan,
    tree: SourceTree,
    *,
    model: str,
    number: int,
    config: ModelConfig,
    options: Options,
) -> Promotion:
    """Say what a promotion would do."""
    state = load_state(repo, model)
    held = state.hold if state is not None else None
    serve_it = options.serve is not False and held is None
    before = served_versions(repo, config, model)
    plan = plan_serve(
        config,
        model=model,
        version=number,
        base_path=repo.base_path(model),
        serving=before,
    )
    return Promotion(
        model=model,
        version=number,
        run=place_of(scan.run, scan, options.context),
        export=place_of(scan.export, scan, options.context),
        path=str(repo.layout.version(model, number)),
        same_as=None,
        published=False,
        served=serve_it,
        before=before,
        after=plan.new_pins if serve_it else before,
        held=held.reason if held is not None else None,
        proof=None,
        files=len(tree.files),
        size=tree.size,
        dry_run=True,
    )
