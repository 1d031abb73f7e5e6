"""promote: from a run directory to a proven, published and served version.

The order is the guarantee: reserve, stage, prove the staged copy, record, C1 (the version exists), C2 (it is
served). Killed anywhere, the repository is as before or after a commit point.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    DamagedExport,
    NoSavedModel,
    NothingToRollBack,
    ServingRepoError,
    SourceChanged,
    UnsafeExport,
    UnsupportedExport,
)
from servingrepo.modelconfig import check_name
from servingrepo.repository import history
from servingrepo.repository.changes import new_event, writing
from servingrepo.repository.contracts import find_baseline
from servingrepo.repository.proving import prove
from servingrepo.repository.publication import (
    alike,
    choose_number,
    find_same,
    publish,
    refuse_flat_model,
    reserve,
    same_in_trash,
    stage,
)
from servingrepo.repository.records import Guard, Proof, Source, VersionRecord
from servingrepo.repository.references import Reference, previous_version
from servingrepo.repository.repository import load_state, me
from servingrepo.repository.served import pins, read_own_config
from servingrepo.rollout.gating import Gated, pass_gates
from servingrepo.rollout.guards import pass_guards
from servingrepo.rollout.overtaking import events_so_far, overtaken_by
from servingrepo.rollout.plans import plan_serve
from servingrepo.rollout.serving import refuse_unfit, serve
from servingrepo.rollout.switch import EndpointResult, switch
from servingrepo.rollout.tracing import place_of, trace
from servingrepo.rollout.values import Options, Promotion
from servingrepo.rundir import scan_run
from servingrepo.savedmodel import (
    Inspection,
    TensorCheck,
    Tensors,
    inspect_export,
    read_variables,
)
from servingrepo.smoke import check_cases, judge
from servingrepo.storage.copying import hash_source, need_space
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.hashing import content_digest
from servingrepo.storage.progress import Notice, Progress, silent, unheard
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
) -> Promotion:
    """Publish the SavedModel of a run as the next version of a model, proven, and serve it.

    Raises:
        NoSavedModel, AmbiguousExport, DamagedExport, UnsupportedExport, UnsafeExport: The run is not fit.
        StaleRun: It is strict, and the run is stale or mixed.
        GateFailed: The run did not measure what a gate asks for.
        BreakingChange, UnsafeOperation, BadContract: A gate is shut, and was not opened.
        NumberUsed, VersionBad, ConfigEdited, ConfigInvalid, RepositoryDamaged: The repository says no.
        LoadFailed, SmokeFailed and other errors of the engine: The staged copy did not prove itself.
        SourceChanged: Somebody wrote into the run.
        NoSpace, NoPermission, StorageFailed: The disk says no.
        EndpointUnreachable, SwitchFailed: The version is published, but the endpoints did not follow.
    """
    check_name(model)
    refuse_flat_model(repo, model)
    read_own_config(repo)  # an edit by hand is to be heard of before a long copy
    scan = scan_run(run, saved_model=options.saved_model)
    export = Path(scan.export)
    tree = read_tree(export, boundary=Path(scan.run))
    variables = read_variables(export)
    inspection = inspect_export(export, variables=variables)
    refuse_defects(inspection, export)
    check_cases(options.cases, inspection)  # before a long copy
    gated = pass_gates(repo, model, scan, options.gates, strict=options.strict)
    candidates = alike(repo, model, tree)
    if candidates:
        digest = content_digest(hash_source(tree))
        same = find_same(repo, model, digest=digest)
        if same is not None:
            again = _serve_again(repo, same, scan, options)
            return msgspec.structs.replace(again, gates=gated.verdicts, doubts=gated.doubts)
    guard = _pass_guards(repo, model, inspection, read_own_config(repo), options)
    if options.dry_run:
        number = choose_number(repo, model, options.version)
        need_space(tree, repo.layout.models)
        promised = _promised(repo, scan, tree, model=model, number=number, options=options)
        return msgspec.structs.replace(
            promised, gates=gated.verdicts, doubts=gated.doubts, guard=guard
        )
    smoking = engine if options.smoke else None
    running = smoking.name if smoking is not None else ""
    known = events_so_far(repo, model)
    with reserve(repo, model=model, version=options.version, engine=running) as place:
        tensors = Tensors(variables.index) if variables.index is not None else None
        watch = tensors.watch if tensors is not None else None
        manifest = stage(repo, place, tree, progress=progress, watch=watch)
        _same_graph(export, inspection, inspect_export(place.export))
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
        return _commit(repo, place, record, scan, options, inspection=inspection, known=known)


def refuse_defects(inspection: Inspection, export: Path) -> None:
    """Refuse an export that is known to be bad before any server starts, with all that is wrong.

    Raises:
        NoSavedModel, DamagedExport, UnsupportedExport, UnsafeExport: By the worst defect.
    """
    if not inspection.defects:
        return
    with storage_errors("read", export):
        for name in ("saved_model.pb", "saved_model.pbtxt"):
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


def _same_graph(export: Path, source: Inspection, staged: Inspection) -> None:
    """The copy is what was looked at, or somebody changed the source in between."""
    if staged.digest != source.digest or staged.defects:
        raise SourceChanged(
            f"{export} changed between the look at it and the copy",
            problems=[defect.message for defect in staged.defects],
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


def _pass_guards(
    repo: Repository,
    model: str,
    inspection: Inspection,
    config: ModelConfig,
    options: Options,
) -> Guard:
    return pass_guards(
        inspection,
        model=model,
        baseline=find_baseline(repo, model, config=config, contract=options.contract),
        target=options.target,
        allow_breaking=options.allow_breaking,
        allow_ops=options.allow_ops,
    )


def _commit(
    repo: Repository,
    place: Reservation,
    record: VersionRecord,
    scan: RunScan,
    options: Options,
    *,
    inspection: Inspection,
    known: frozenset[str],
) -> Promotion:
    """C1 and C2, under the lock, and the line of history."""
    with writing(repo, publishing=True):
        same = find_same(repo, place.model, digest=record.digest)
        if same is None:
            # Another version may be served by now, and the contract be another.
            guard = _pass_guards(repo, place.model, inspection, read_own_config(repo), options)
            record = msgspec.structs.replace(record, guard=guard)
            overtaken = overtaken_by(repo, place.model, place.version, since=known)
            return _publish_and_serve(repo, place, record, scan, options, overtaken=overtaken)
    # Another promotion of the same content was faster; this number stays unused.
    return _serve_again(repo, same, scan, options)


def _publish_and_serve(
    repo: Repository,
    place: Reservation,
    record: VersionRecord,
    scan: RunScan,
    options: Options,
    *,
    overtaken: str,
) -> Promotion:
    """Do what `_commit` holds the lock for."""
    model, version = place.model, place.version
    proof = record.proofs[0] if record.proofs else None
    config = read_own_config(repo)
    state = load_state(repo, model)
    held = state is not None and state.hold is not None
    before = pins(config, model)
    serve_it = options.serve if options.serve is not None else not held
    serve_it = serve_it and not held and not overtaken
    plan = None
    if serve_it:
        plan = plan_serve(config, model=model, version=version, base_path=repo.base_path(model))
    if plan is not None and options.endpoints:
        refuse_unfit(repo, plan, of_model=False, of_others=True)
    publish(repo, place, record)
    endpoints: tuple[EndpointResult, ...] = ()
    failure: ServingRepoError | None = None
    if plan is not None:
        try:
            endpoints = switch(
                repo, plan, endpoints=options.endpoints, wait=options.wait, rules=options.rules
            )
        except ServingRepoError as error:
            failure = error
    after = pins(read_own_config(repo), model)
    event = new_event(
        repo,
        txid=place.txid,
        action="promote",
        model=model,
        version=version,
        before=before,
        after=after,
        why=options.message,
        run=record.source.run,
        proof=say_proof(proof),
        endpoints=tuple(map(str, options.endpoints)) if serve_it else (),
        allowed=record.guard.allowed if record.guard is not None else (),
    )
    event = msgspec.structs.replace(event, code=str(record.origin.code or ""))
    history.append(repo.disk, repo.layout.history, event)
    if failure is not None:
        state_now = "and served, but" if version in after else "but not served:"
        failure.message = f"{model}@{version} is published {state_now} {failure.message}"
        failure.args = (failure.message,)
        raise failure
    promotion = _result(repo, record, scan, options, same_as=None, proof=proof)
    return msgspec.structs.replace(
        promotion,
        before=before,
        after=after,
        served=serve_it,
        overtaken=overtaken,
        endpoints=endpoints,
    )


def _serve_again(
    repo: Repository, same: VersionRecord, scan: RunScan, options: Options
) -> Promotion:
    """Return the version that has this content already; nothing changes but in two cases.

    Unless somebody holds the model, it is served if told to, or if its own promotion did not get that far: it was
    never served and is above what is. With endpoints, the version that is served is proven on them again.
    """
    promotion = _result(repo, same, scan, options, same_as=same.version, proof=None)
    state = load_state(repo, same.model)
    held = state is not None and state.hold is not None
    unfinished = (
        options.serve is None
        and not held
        and same.version > max(promotion.before, default=0)
        and not _was_served(repo, same.model, same.version)
    )
    wanted = (options.serve and not held) or unfinished
    if not (wanted or (promotion.served and options.endpoints)):
        return promotion
    switched = serve(
        repo,
        Reference(model=same.model, kind="number", number=same.version),
        endpoints=options.endpoints,
        wait=options.wait,
        rules=options.rules,
        message=options.message,
        dry_run=options.dry_run,
    )
    return msgspec.structs.replace(
        promotion,
        served=True,
        before=switched.before,
        after=switched.after,
        endpoints=switched.endpoints,
        notes=switched.notes,
    )


def _was_served(repo: Repository, model: str, version: int) -> bool:
    moves = history.moves_backwards(repo.layout.history, model=model)
    return any(move.served_after == version for move in moves)


def _result(
    repo: Repository,
    record: VersionRecord,
    scan: RunScan,
    options: Options,
    *,
    same_as: int | None,
    proof: Proof | None,
) -> Promotion:
    state = load_state(repo, record.model)
    now = pins(read_own_config(repo), record.model)
    return Promotion(
        model=record.model,
        version=record.version,
        gates=record.gates,
        doubts=record.doubts,
        run=place_of(scan.run, scan, options.context),
        export=place_of(scan.export, scan, options.context),
        path=str(repo.layout.version(record.model, record.version)),
        same_as=same_as,
        published=same_as is None,
        served=record.version == max(now, default=None),
        before=now,
        after=now,
        held=state.hold.reason if state is not None and state.hold is not None else None,
        proof=proof,
        files=len(record.manifest.files),
        size=record.manifest.size,
        dry_run=options.dry_run,
        can_go_back=_can_go_back(repo, record.model),
        same_in_trash=same_in_trash(repo, record.model, digest=record.digest),
        guard=record.guard,
    )


def _can_go_back(repo: Repository, model: str) -> bool:
    """Tell whether `rollback` would find a version to go to."""
    try:
        previous_version(repo, model)
    except NothingToRollBack:
        return False
    return True


def _promised(
    repo: Repository,
    scan: RunScan,
    tree: SourceTree,
    *,
    model: str,
    number: int,
    options: Options,
) -> Promotion:
    """Say what a promotion would do."""
    state = load_state(repo, model)
    config = read_own_config(repo)
    held = state.hold if state is not None else None
    serve_it = options.serve is not False and held is None
    before = pins(config, model)
    plan = plan_serve(config, model=model, version=number, base_path=repo.base_path(model))
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


def say_proof(proof: Proof | None) -> str:
    """Say in a few words which proof was given, for history."""
    if proof is None:
        return "not checked"
    report = proof.report
    parts = [f"{len(report.passed)} passed"]
    if report.inconclusive:
        parts.append(f"{len(report.inconclusive)} inconclusive")
    if report.failed:
        parts.append(f"{len(report.failed)} failed")
    return f"{proof.engine} ({proof.server}): {', '.join(parts)}"
