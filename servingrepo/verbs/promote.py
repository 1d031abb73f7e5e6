"""promote: makes a proven, published and served version of a run directory.

The order is the guarantee: decide, reserve a number, stage, prove the staging copy, C1 (the version exists), C2 (it
is served), history. A process that is killed at any point leaves the repository as before or after a commit point.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from servingrepo.errors import (
    NothingToRollBack,
    ServingRepoError,
    SmokeFailed,
    SourceChanged,
    StaleRun,
    SwitchFailed,
)
from servingrepo.fleet.hooks import between_hooks
from servingrepo.fleet.plans import plan_serve
from servingrepo.fleet.switch import Followed, switch
from servingrepo.modelconfig import check_name
from servingrepo.repository.contracts import find_baseline
from servingrepo.repository.overtaking import newest_event, overtaken_by
from servingrepo.repository.protection import refuse_followers
from servingrepo.repository.proving import (
    Live,
    Trial,
    add_proof,
    alone_on_server,
    prove,
    refuse_lacking,
    server_of,
    smoking,
    weighing,
)
from servingrepo.repository.publication import (
    choose_number,
    find_same,
    may_be_known,
    new_record,
    publish,
    refuse_flat_model,
    reserve,
    same_in_trash,
    stage,
)
from servingrepo.repository.records import Proof, Source, VersionRecord, say_proofs
from servingrepo.repository.references import Reference, previous_version, was_served
from servingrepo.repository.repository import burn_number, load_record, me
from servingrepo.repository.retention import need_policies
from servingrepo.repository.snapshot import (
    Snapshot,
    read_snapshot,
    snapshot_of,
    snapshot_to_change,
)
from servingrepo.repository.transaction import append_event, free_reserved_space, new_event, writing
from servingrepo.repository.version_lock import using
from servingrepo.runs.gates import Served, judge_gates, numbers_of
from servingrepo.runs.mounts import refuse_hung
from servingrepo.runs.origin import Origin
from servingrepo.runs.run import Run, read_run, run_directory
from servingrepo.runs.tracing import place_of, trace
from servingrepo.savedmodel.inspection import refuse_defects
from servingrepo.smoke.drift import Drift, judge_drift
from servingrepo.smoke.report import is_enough, judge
from servingrepo.storage.copying import hash_source, need_space
from servingrepo.storage.hashing import content_digest
from servingrepo.texts import as_path, escaped, some
from servingrepo.verbs.change import refuse_unfit
from servingrepo.verbs.compatibility import check_compatibility
from servingrepo.verbs.engines import engine_for
from servingrepo.verbs.options import optional_path
from servingrepo.verbs.prune import prune_after
from servingrepo.verbs.serve import serve_now
from servingrepo.verbs.unproven import refuse_lacking_servers, say_unproven
from servingrepo.verbs.values import Promotion

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from servingrepo.repository.publication import Reservation
    from servingrepo.repository.records import Guard
    from servingrepo.repository.repository import Repository
    from servingrepo.runs.measurements import GateVerdict
    from servingrepo.runs.values import RunScan
    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import TensorCheck
    from servingrepo.servers.engines.choice import Engine
    from servingrepo.smoke.files import Cases  # noqa: TC004 - only smoke tests pay for its import
    from servingrepo.storage.manifest import Manifest
    from servingrepo.storage.progress import Progress
    from servingrepo.verbs.options import PromoteOptions


_MOST_UNREAD = 100


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """The run that a promotion is about to publish, and its origin."""

    run: Run
    origin: Origin
    cases: Cases | None

    @property
    def unread(self) -> tuple[str, ...]:
        """The problems of the run's event files and metrics."""
        return self.run.measured.unread[:_MOST_UNREAD]


def promote(repo: Repository, run: str | Path, options: PromoteOptions) -> Promotion:
    """Publish a run's SavedModel as the next version, proven, and serve it; see `servingrepo promote`.

    With `keep`, a prune by that policy follows the promotion. Its result or failure is in `pruned` and `prune_failed`
    of the result, and is no error. If the run lies on a network file system, that may take `run_wait` seconds to
    answer. If it hangs later, this call hangs too.

    Raises:
        NoSavedModel, AmbiguousExport, DamagedExport, UnsupportedExport, UnsafeExport: The run has no usable export.
        StaleRun: The promotion is strict, and the run is stale or mixed.
        GateFailed: The run's measurements do not pass a gate.
        BreakingChange, UnsafeOperation, BadContract: The export would break clients, or touches files, network or
            processes.
        NumberUsed, VersionBad, ConfigEdited, ConfigInvalid, RepositoryDamaged: The repository does not allow it, or
            the model's live versions are elsewhere.
        NotConverged: Servers may still follow a policy that an adoption replaced: they would load it at once.
        LoadFailed, SmokeFailed and other errors of the engine: The staging copy failed its smoke test.
        SourceChanged: The run changed during the promotion.
        NoSpace, NoPermission, StorageFailed: The disk is full, or refuses to write.
        EndpointUnreachable, SwitchFailed: The version is published, but the endpoints did not follow.
    """
    if options.smoke and not options.dry_run:
        options = msgspec.structs.replace(options, engine=engine_for(repo, options.engine))
    check_name(options.model)
    if options.keep is not None:
        need_policies({options.model: options.keep})
    given = as_path(run, "run")
    refuse_hung(given, seconds=options.run_wait)
    with run_directory(given) as folder:
        if folder != given:
            packed = msgspec.structs.replace(options.call, archive=os.path.realpath(given))
            options = msgspec.structs.replace(options, context=packed)
        candidate = _read(repo, folder, options)
        if options.dry_run:
            return _foresee(repo, candidate, options)
        foresee = partial(_foresee, repo, candidate, options.rehearsal())
        with between_hooks(options, "promote", foresee) as hooks:
            now, gates = _decide(repo, candidate, options)
            done = _promote_known(repo, now, candidate, options, gates)
            if done is None:
                _check_compatibility(repo, now, candidate.run.inspection, options)
                newest = newest_event(repo, options.model)
                with _reserve(repo, candidate, options) as place:
                    record = _prepare(repo, place, candidate, options, gates=gates, now=now)
                    options.run_read()
                    with writing(repo, publishing=True):
                        done = _commit(repo, place, record, candidate, options, since=newest)
            done = hooks.tell(prune_after(repo, done, options))
    return msgspec.structs.replace(done, hooks=hooks.results)


def _foresee(repo: Repository, candidate: Candidate, options: PromoteOptions) -> Promotion:
    """Return the result that a promotion would have; the options are those of a dry run."""
    now, gates = _decide(repo, candidate, options)
    promised = _promote_known(repo, now, candidate, options, gates)
    if promised is None:
        guard = _check_compatibility(repo, now, candidate.run.inspection, options)
        promised = _promised(repo, now, candidate, options, gates=gates, guard=guard)
    return prune_after(repo, promised, options)


def _decide(
    repo: Repository, candidate: Candidate, options: PromoteOptions
) -> tuple[Snapshot, tuple[GateVerdict, ...]]:
    """Return the snapshot by which a promotion is decided, and the verdicts of the gates, before a long copy.

    Raises:
        ConfigEdited, ConfigInvalid, RepositoryDamaged: The repository does not allow a promotion.
        NotConverged: Servers may still follow a policy that an adoption replaced.
        GateFailed, StaleRun: The run does not pass its gates, or is stale.
    """
    refuse_flat_model(repo, options.model)
    now = snapshot_to_change(repo, options.model)
    refuse_followers(now)
    return now, _pass_gates(repo, now, candidate.run, options)


def _reserve(
    repo: Repository, candidate: Candidate, options: PromoteOptions
) -> AbstractContextManager[Reservation]:
    """Reserve the number, unless the engine cannot run the graph.

    Raises:
        LoadFailed: The engine certainly lacks operations of the graph. This comes before a long copy.
    """
    engine = options.starts
    if engine is not None:
        refuse_lacking(engine.name, candidate.run.inspection)
    return reserve(
        repo,
        model=options.model,
        version=options.version,
        engine=engine.name if engine is not None else "",
        smoked_on=server_of(engine),
        endpoints=tuple(map(str, options.fleet)) if options.serve is not False else (),
    )


def _prepare(
    repo: Repository,
    place: Reservation,
    candidate: Candidate,
    options: PromoteOptions,
    *,
    gates: tuple[GateVerdict, ...],
    now: Snapshot,
) -> VersionRecord:
    """Stage the export and prove the staging copy; return the record of the future version.

    Raises:
        SourceChanged: The run changed meanwhile.
        DamagedExport: A tensor differs from its entry in the index.
        LoadFailed, SmokeFailed and other errors of the engine: The staging copy failed its smoke test.
        DriftInconclusive: There is a budget for its drift, and the cases do not decide.
    """
    manifest, tensors = _stage(repo, place, candidate, options.progress)
    proof = None
    if (engine := options.starts) is not None:
        proof = _prove(repo, place, candidate, options, engine=engine, now=now)
    _refuse_changed(candidate)
    repo.disk.step("proven", place.export)
    return _record(
        repo,
        place,
        candidate,
        options,
        manifest=manifest,
        tensors=tensors,
        proof=proof,
        gates=gates,
    )


def _read(repo: Repository, run: Path, options: PromoteOptions) -> Candidate:
    """Read the run, once. So gates, copy and record are of the same files.

    Raises:
        NoSavedModel, AmbiguousExport, DamagedExport, UnsupportedExport, UnsafeExport: The run has no usable export.
        BadCase: A case of the smoke test does not fit the export.
    """
    read = read_run(
        run,
        saved_model=optional_path(options.saved_model),
        unpacked=bool(options.call.archive),
        sizes=options.sizes,
        progress=options.progress,
    )
    cases = None
    if options.smoke:  # other promotions need not import what reads cases
        from servingrepo.smoke.fitting import check_cases
        from servingrepo.verbs.cases import cases_beside, cases_in_run

        cases = options.smoke_cases
        if not cases:
            beside = cases_beside(repo, options.model, cases)
            cases = beside + cases_in_run(read.listing, read.reads)
        check_cases(cases.of(read.export), read.inspection)
    origin = trace(read.listing, read.tracked, options.call, reads=read.reads)
    return Candidate(run=read, origin=origin, cases=cases)


def _pass_gates(
    repo: Repository, now: Snapshot, run: Run, options: PromoteOptions
) -> tuple[GateVerdict, ...]:
    """Judge the run's measurements by the gates. A strict promotion also refuses a stale run.

    Raises:
        GateFailed: A gate does not pass, or the run did not measure its number; the error lists all such gates.
        StaleRun: The promotion is strict, and the run is stale or mixed.
    """
    served = None
    if now.top is not None and any(gate.relative for gate in options.gates):
        record = load_record(repo, now.model, now.top)
        served = Served(version=now.top, numbers=record.measured if record is not None else ())
    verdicts = judge_gates(options.gates, run, served=served)
    if options.strict and run.staleness:
        raise StaleRun(
            f"the export in {run.scan.run} may be older than its training: {run.staleness[0]}",
            problems=run.staleness if len(run.staleness) > 1 else (),
            hint="export the model again, choose with --saved-model, or leave --strict out",
        )
    return verdicts


def _check_compatibility(
    repo: Repository, now: Snapshot, inspection: Inspection, options: PromoteOptions
) -> Guard:
    """Compare the export with the contract or the served version, and with what the servers can run.

    Raises:
        UnsupportedExport, BreakingChange, UnsafeOperation: See `check_compatibility`.
    """
    if options.serve is not False:
        refuse_lacking_servers(inspection.path, inspection.demands, options.fleet_rules)
    return check_compatibility(
        inspection,
        model=now.model,
        baseline=find_baseline(repo, now, contract=optional_path(options.contract)),
        target=options.target,
        allow_breaking=options.allow_breaking,
        allow_ops=frozenset(options.allow_ops),
    )


def _stage(
    repo: Repository, place: Reservation, candidate: Candidate, progress: Progress
) -> tuple[Manifest, TensorCheck | None]:
    """Copy the export, and check that the copy is what was judged.

    Raises:
        SourceChanged: The graph or the index differs from the inspected file.
        DamagedExport: A tensor differs from its entry in the index.
    """
    tensors = candidate.run.variables.tensors()
    watch = tensors.watch if tensors is not None else None
    manifest = stage(repo, place, candidate.run.tree, progress=progress, watch=watch)
    _refuse_another_graph(candidate, manifest)
    checked = tensors.result() if tensors is not None else None
    if checked is not None:
        found = msgspec.structs.replace(candidate.run.inspection, defects=checked.defects())
        refuse_defects(found, candidate.run.export)
    return manifest, checked


def _refuse_another_graph(candidate: Candidate, copied: Manifest) -> None:
    """Compare the copied graph and index with the inspected ones, by their hashes.

    For other files the copy compares sizes and times. But these two files decide what a server does, so times are no
    proof for them.

    Raises:
        SourceChanged: The graph or the index differs from the inspected file.
    """
    inspection, index = candidate.run.inspection, candidate.run.variables.data
    judged = {inspection.file: inspection.digest}
    if index is not None:
        judged["variables/variables.index"] = blake3(index).hexdigest()
    hashes = {file.path: file.hash for file in copied.files}
    changed = [path for path, digest in judged.items() if hashes.get(path) != digest]
    if changed:
        raise SourceChanged(
            f"{Path(inspection.path, changed[0])} changed between its inspection and the copy",
            hint="promote again when the program that writes there has finished",
        )


def _prove(
    repo: Repository,
    place: Reservation,
    candidate: Candidate,
    options: PromoteOptions,
    *,
    engine: Engine,
    now: Snapshot,
) -> Proof:
    """Serve the staging copy and send it requests; compare its answers with those of the live version.

    Raises:
        Locked: Another smoke test uses the running server of the engine, and did so for all of `lock_wait` seconds.
        LoadFailed, SmokeFailed and other errors of the engine: The smoke test failed.
        DriftInconclusive: There is a budget for its drift, and the cases do not decide.
    """
    from servingrepo.verbs.against import live_version

    live = live_version(repo, now, candidate.cases, options)
    trial = Trial(
        model=place.model,
        version=place.version,
        export=place.export,
        inspection=candidate.run.inspection,
        cases=candidate.cases,
        live=live if isinstance(live, Live) else None,
        budget=options.budget,
        staged=True,
        txid=place.txid,
    )
    with alone_on_server(repo, engine, options.notice):
        proof = prove(
            engine, trial, timeout=options.timeout, time=repo.now(), notice=options.notice
        )
    if isinstance(live, Drift):
        proof = msgspec.structs.replace(proof, drift=live)
    with weighing(proof):
        judge(proof.report, strict=options.strict)
        if proof.drift is not None:
            judge_drift(
                proof.drift,
                options.budget,
                model=place.model,
                allow_inconclusive=options.fleet_rules.allow_inconclusive,
            )
    return proof


def _refuse_changed(candidate: Candidate) -> None:
    """Refuse a run if a file changed by which it was judged.

    Raises:
        SourceChanged: Such a file changed; the error lists all.
    """
    changed = candidate.run.reads.changed()
    if changed:
        raise SourceChanged(
            f"{candidate.run.scan.run} changed during the copy and the smoke test: {some(changed)}",
            problems=changed if len(changed) > 1 else (),
            hint="promote again when the program that writes there has finished: these files decide about a run",
            details={"files": list(changed)},
        )


def _record(
    repo: Repository,
    place: Reservation,
    candidate: Candidate,
    options: PromoteOptions,
    *,
    manifest: Manifest,
    tensors: TensorCheck | None,
    proof: Proof | None,
    gates: tuple[GateVerdict, ...],
) -> VersionRecord:
    run = candidate.run
    record = new_record(
        place.model,
        place.version,
        txid=place.txid,
        by=me(),
        time=repo.now(),
        message=options.message,
        source=_source(run.scan, options),
        manifest=manifest,
        inspection=run.inspection,
        tensors=tensors,
    )
    return msgspec.structs.replace(
        record,
        proofs=(proof,) if proof is not None else (),
        measured=numbers_of(run.measured.measurements),
        gates=gates,
        doubts=run.staleness,
        unread=candidate.unread,
        origin=candidate.origin,
    )


def _source(scan: RunScan, options: PromoteOptions) -> Source:
    return Source(
        run=escaped(place_of(scan.run, scan, options.call)),
        export=escaped(place_of(scan.export, scan, options.call)),
        kind=scan.kind,
        provenance={key: escaped(value) for key, value in scan.provenance.items()},
    )


def _commit(
    repo: Repository,
    place: Reservation,
    record: VersionRecord,
    candidate: Candidate,
    options: PromoteOptions,
    *,
    since: str,
) -> Promotion:
    """Commit: C1, C2 and the line of history, decided by a fresh snapshot. The caller holds the lock.

    `since` is the id of the model's newest event at the time when the promotion was decided.
    """
    burn_number(repo, place.model, place.version)
    now = snapshot_to_change(repo, place.model)  # another version may be served by now
    refuse_followers(now)
    same = find_same(repo, now, digest=record.digest)
    if same is not None:
        # Another promotion of the same content was faster; this number stays unused.
        free_reserved_space(repo)  # from here on only a pointer moves
        return _take_again(repo, now, same, candidate, options)
    guard = _check_compatibility(repo, now, candidate.run.inspection, options)
    record = msgspec.structs.replace(record, guard=guard)
    overtaken = overtaken_by(repo, place.model, place.version, since=since)
    serve_it = options.serve is not False and now.hold is None and not overtaken
    plan = plan_serve(now, place.version) if serve_it else None
    if plan is not None and options.fleet:
        refuse_unfit(repo, plan, of_model=False, of_others=True)
    publish(repo, place, record)
    followed, failure, after = Followed(), None, now.served
    if plan is not None:
        try:
            followed, after = switch(repo, plan, options), plan.new_pins
        except ServingRepoError as error:
            failure, after = error, read_snapshot(repo, place.model).served
            if isinstance(error, SwitchFailed):
                followed = Followed(stages=error.stages)
    event = new_event(
        repo,
        txid=place.txid,
        action="promote",
        model=place.model,
        version=place.version,
        before=now.served,
        after=after,
        why=options.message,
        run=record.source.run,
        proof=say_proofs(record.proofs),
        code=str(record.origin.code or ""),
        endpoints=tuple(map(str, options.fleet)) if serve_it else (),
        allowed=guard.allowed,
        stages=followed.stages,
    )
    append_event(repo, event)
    if failure is not None:
        served = ", ".join(map(str, after)) or "nothing"
        not_served = f"but not served (served now: {served}):"
        state = "and served, but" if place.version in after else not_served
        said = f"{place.model}@{place.version} is published all the same, {state} {failure.message}"
        reported = failure.with_message(said)
        reported.says_what_happened = True
        raise reported from failure
    live = bool(options.fleet) and serve_it
    # models.config is what this promotion wrote: it need not be read again.
    there = snapshot_of(repo, place.model, plan.after if plan is not None else now.config)
    return msgspec.structs.replace(
        _result(repo, there, record, candidate.run.scan, options),
        same_as=None,
        published=True,
        proof=record.proofs[0] if record.proofs else None,
        before=now.served,
        after=after,
        served=serve_it,
        overtaken=overtaken,
        endpoints=followed.endpoints,
        stages=followed.stages,
        unproven=say_unproven(repo, place.model, place.version, options.fleet_rules, live=live)
        if serve_it
        else (),
    )


def _promote_known(
    repo: Repository,
    now: Snapshot,
    candidate: Candidate,
    options: PromoteOptions,
    gates: tuple[GateVerdict, ...],
) -> Promotion | None:
    """Return the promotion of a version that has this content already.

    None means that no version has it, or that a prune is removing that version now.

    A version without a sufficient proof gets one. It is served if the options ask for that, or if its own promotion
    ended before it served it, unless the model is on hold. With endpoints, a served version is proven on them again.
    Nothing else changes.

    Raises:
        VersionBad: That content is marked bad.
        SmokeFailed, LoadFailed and other errors of the engine: The smoke test failed; the version stays as it is.
    """
    if not may_be_known(repo, now, candidate.run.tree):
        return None
    digest = content_digest(hash_source(candidate.run.tree))
    same = find_same(repo, now, digest=digest)
    if same is None:
        return None
    proof, unproven = None, False
    if options.smoke and not any(
        is_enough(one.report, strict=options.strict) for one in same.proofs
    ):
        unproven = True
        if options.starts is not None:
            proof = _prove_again(repo, same, candidate, options, engine=options.starts)
    if _is_to_be_served(repo, now, same.version, options):
        options.run_read()
        with writing(repo, dry_run=options.dry_run):
            fresh = snapshot_to_change(repo, now.model)
            again = find_same(repo, fresh, digest=digest)
            if again is None:
                return None
            found = _take_again(repo, fresh, again, candidate, options)
    else:
        found = _result(repo, now, same, candidate.run.scan, options)
    return msgspec.structs.replace(
        found,
        gates=gates,
        doubts=candidate.run.staleness,
        unread=candidate.unread,
        proof=proof,
        would_prove=options.dry_run and unproven,
    )


def _prove_again(
    repo: Repository,
    unproven: VersionRecord,
    candidate: Candidate,
    options: PromoteOptions,
    *,
    engine: Engine,
) -> Proof:
    """Smoke-test a published version without a sufficient proof, and add the proof to its record.

    Raises:
        SmokeFailed, LoadFailed and other errors of the engine: The smoke test failed; the version stays as it is.
        Locked: The proof could not be recorded.
    """
    model, version = unproven.model, unproven.version
    name = f"{model}@{version}"
    options.notice(f"{name} has this content but no sufficient proof: it is smoke-tested now")
    with (
        smoking(repo, model, version, engine, options.notice) as txid,
        using(repo, model, version),
    ):
        proof = prove(
            engine,
            Trial(
                model=model,
                version=version,
                export=repo.layout.version(model, version),
                inspection=candidate.run.inspection,
                cases=candidate.cases,
                txid=txid,
            ),
            timeout=options.timeout,
            time=repo.now(),
            notice=options.notice,
        )
    try:
        with weighing(proof):
            judge(proof.report, strict=options.strict)
    except SmokeFailed as failed:
        failed.problems = (*failed.problems, f"{name} is published already, and stays as it is")
        raise
    return add_proof(repo, model, version, proof, why=options.message)


def _take_again(
    repo: Repository,
    now: Snapshot,
    same: VersionRecord,
    candidate: Candidate,
    options: PromoteOptions,
) -> Promotion:
    """Serve an existing version if it is to be served; the caller holds the lock."""
    found = _result(repo, now, same, candidate.run.scan, options)
    if not _is_to_be_served(repo, now, same.version, options):
        return found
    switched = serve_now(
        repo,
        Reference(model=same.model, kind="number", number=same.version),
        options,
    )
    return msgspec.structs.replace(
        found,
        served=True,
        before=switched.before,
        after=switched.after,
        endpoints=switched.endpoints,
        stages=switched.stages,
        notes=switched.notes,
        unproven=switched.unproven,
    )


def _is_to_be_served(
    repo: Repository, now: Snapshot, version: int, options: PromoteOptions
) -> bool:
    """Tell whether an existing version is to be served, or, if it is served, to be proven on the endpoints again.

    A version that was never served and is above the served one is `unfinished`: its promotion ended too early.
    """
    held = now.hold is not None
    unfinished = (
        options.serve is None
        and not held
        and version > (now.top or 0)
        and not was_served(repo, now.model, version)
    )
    wanted = (options.serve and not held) or unfinished
    return wanted or (version == now.top and bool(options.fleet))


def _result(
    repo: Repository, now: Snapshot, record: VersionRecord, scan: RunScan, options: PromoteOptions
) -> Promotion:
    """Return the result of a promotion that finds this version."""
    return Promotion(
        model=record.model,
        version=record.version,
        gates=record.gates,
        doubts=record.doubts,
        unread=record.unread,
        run=place_of(scan.run, scan, options.call),
        export=place_of(scan.export, scan, options.call),
        path=str(repo.layout.version(record.model, record.version)),
        same_as=record.version,
        published=False,
        served=record.version == now.top,
        before=now.served,
        after=now.served,
        held=now.hold.reason if now.hold is not None else None,
        proof=None,
        files=len(record.manifest.files),
        size=record.manifest.size,
        dry_run=options.dry_run,
        can_go_back=_can_go_back(repo, now),
        same_in_trash=same_in_trash(repo, record.model, digest=record.digest),
        guard=record.guard,
    )


def _can_go_back(repo: Repository, now: Snapshot) -> bool:
    """Tell whether `rollback` would find a version to go to."""
    try:
        previous_version(repo, now)
    except NothingToRollBack:
        return False
    return True


def _promised(
    repo: Repository,
    now: Snapshot,
    candidate: Candidate,
    options: PromoteOptions,
    *,
    gates: tuple[GateVerdict, ...],
    guard: Guard,
) -> Promotion:
    """Return the result that a promotion of new content would have.

    Raises:
        NumberUsed: It would not get the number that the options ask for.
        NoSpace: The disk has no space for the version.
    """
    number = choose_number(repo, now, options.version)
    need_space(candidate.run.tree, repo.layout.models)
    serve_it = options.serve is not False and now.hold is None
    return Promotion(
        model=now.model,
        version=number,
        run=place_of(candidate.run.scan.run, candidate.run.scan, options.call),
        export=place_of(candidate.run.scan.export, candidate.run.scan, options.call),
        path=str(repo.layout.version(now.model, number)),
        same_as=None,
        published=False,
        served=serve_it,
        before=now.served,
        after=plan_serve(now, number).new_pins if serve_it else now.served,
        held=now.hold.reason if now.hold is not None else None,
        proof=None,
        files=len(candidate.run.tree.files),
        size=candidate.run.tree.size,
        dry_run=True,
        gates=gates,
        doubts=candidate.run.staleness,
        unread=candidate.unread,
        guard=guard,
    )
