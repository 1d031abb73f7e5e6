"""promote: from a run directory to a proven, published and served version.

The order is the guarantee: reserve, stage, prove the staged copy, record, C1 (the version exists), C2 (it is
served). Killed anywhere, the repository is as before or after a commit point.
"""

from __future__ import annotations

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
from servingrepo.rollout.committing import commit, pass_release_guards, serve_again
from servingrepo.rollout.gating import Gated, pass_gates
from servingrepo.rollout.overtaking import newest_event
from servingrepo.rollout.plans import plan_serve
from servingrepo.rollout.reproving import find_unproven, prove_again
from servingrepo.rollout.tracing import place_of, trace
from servingrepo.rollout.values import Options, Promotion
from servingrepo.rundir import scan_run
from servingrepo.savedmodel import (
    Inspection,
    TensorCheck,
    Variables,
    inspect_export,
    read_variables,
)
from servingrepo.smoke import check_cases, judge
from servingrepo.storage.copying import hash_source, need_space
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.hashing import content_digest
from servingrepo.storage.progress import Notice, Progress, Told, silent, unheard, untold
from servingrepo.storage.tree import SourceTree, read_tree

if TYPE_CHECKING:
    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.publication import Reservation
    from servingrepo.repository.repository import Repository
    from servingrepo.rundir import RunScan
    from servingrepo.serving.engines import Engine
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
    unpacked = bool(options.context.archive)
    scan = scan_run(run, saved_model=options.saved_model, unpacked=unpacked)
    export = Path(scan.export)
    tree = read_tree(export, boundary=Path(scan.run))
    variables = read_variables(export)
    inspection = inspect_export(export, variables=variables)
    refuse_defects(inspection, export)
    check_cases(options.cases, inspection)  # before a long copy
    gated = pass_gates(repo, model, scan, options.gates, strict=options.strict, progress=progress)
    if may_be_known(repo, model, tree):
        digest = content_digest(hash_source(tree))
        unproven = find_unproven(repo, model, digest, options)
        proof = prove_again(repo, model, digest, inspection, options, engine=engine, notice=notice)
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
            proof = prove(
                smoking,
                model=model,
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


def refuse_defects(inspection: Inspection, export: Path) -> None:
    """Refuse an export that is known to be bad before any server starts, with all that is wrong.

    Raises:
        NoSavedModel, DamagedExport, UnsupportedExport, UnsafeExport: By the worst defect.
    """
    if not inspection.defects:
        return
    with storage_errors("read", export):
        for name in ("saved_model.pb", "saved_model.pbtxt", "variables/variables.index"):
            if (export / name).is_file():
                (export / name).open("rb").close()
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
        origin=trace(scan, options.context),
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
