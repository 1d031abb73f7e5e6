"""The end of a promotion: C1, the version exists; C2, it is served; and the line of history.

Also for content that is there already: nothing is published then, and little changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import NothingToRollBack, ServingRepoError, SwitchFailed
from servingrepo.fleet.plans import plan_serve
from servingrepo.fleet.rules import Manner
from servingrepo.fleet.switch import Followed, switch
from servingrepo.repository import history
from servingrepo.repository.changes import new_event, writing
from servingrepo.repository.contracts import find_baseline
from servingrepo.repository.publication import find_same, publish, same_in_trash
from servingrepo.repository.records import say_proofs
from servingrepo.repository.references import Reference, previous_version
from servingrepo.repository.repository import burn_number, load_state
from servingrepo.repository.served import read_config_of, read_own_config, served_versions
from servingrepo.repository.spare import give_up_spare
from servingrepo.verbs.guards import pass_guards
from servingrepo.verbs.overtaking import overtaken_by
from servingrepo.verbs.serving import refuse_unfit, serve_now
from servingrepo.verbs.tracing import place_of
from servingrepo.verbs.unproven import refuse_lacking_servers, say_unproven
from servingrepo.verbs.values import Options, Promotion

if TYPE_CHECKING:
    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.publication import Reservation
    from servingrepo.repository.records import Guard, Proof, VersionRecord
    from servingrepo.repository.repository import Repository
    from servingrepo.runs import RunScan
    from servingrepo.savedmodel import Inspection
    from servingrepo.storage.progress import Told


def commit(
    repo: Repository,
    place: Reservation,
    record: VersionRecord,
    scan: RunScan,
    options: Options,
    *,
    inspection: Inspection,
    known: str,
) -> Promotion:
    """C1 and C2, under the lock, and the line of history."""
    with writing(repo, publishing=True):
        burn_number(repo, place.model, place.version)
        config = read_config_of(repo, place.model)  # somebody may have taken an edit over meanwhile
        same = find_same(repo, place.model, digest=record.digest)
        if same is None:
            # Another version may be served by now, and the contract be another.
            guard = pass_release_guards(repo, place.model, inspection, config, options)
            record = msgspec.structs.replace(record, guard=guard)
            overtaken = overtaken_by(repo, place.model, place.version, since=known)
            return _publish_and_serve(repo, place, record, scan, options, overtaken=overtaken)
        # Another promotion of the same content was faster; this number stays unused.
        give_up_spare(repo)  # from here on only a pointer moves
        return _take_again(repo, same, scan, options)


def _publish_and_serve(
    repo: Repository,
    place: Reservation,
    record: VersionRecord,
    scan: RunScan,
    options: Options,
    *,
    overtaken: str,
) -> Promotion:
    """Do what `commit` holds the lock for."""
    model, version = place.model, place.version
    proof = record.proofs[0] if record.proofs else None
    config = read_own_config(repo)
    state = load_state(repo, model)
    held = state is not None and state.hold is not None
    before = served_versions(repo, config, model)
    serve_it = options.serve if options.serve is not None else not held
    serve_it = serve_it and not held and not overtaken
    plan = None
    if serve_it:
        plan = plan_serve(
            config,
            model=model,
            version=version,
            base_path=repo.base_path(model),
            serving=before,
        )
    if plan is not None and options.endpoints:
        refuse_unfit(repo, plan, of_model=False, of_others=True)
    publish(repo, place, record)
    followed = Followed()
    failure: ServingRepoError | None = None
    if plan is not None:
        try:
            followed = switch(
                repo, plan, endpoints=options.endpoints, wait=options.wait, rules=options.rules
            )
        except ServingRepoError as error:
            failure = error
            if isinstance(error, SwitchFailed):
                followed = Followed(stages=error.stages)
    after = served_versions(repo, read_own_config(repo), model)
    live = bool(options.endpoints)
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
        proof=say_proofs(record.proofs),
        endpoints=tuple(map(str, options.endpoints)) if serve_it else (),
        allowed=record.guard.allowed if record.guard is not None else (),
    )
    event = msgspec.structs.replace(
        event, code=str(record.origin.code or ""), stages=followed.stages
    )
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
        endpoints=followed.endpoints,
        stages=followed.stages,
        unproven=say_unproven(repo, model, version, options.rules, live=live) if serve_it else (),
    )


def serve_again(
    repo: Repository,
    model: str,
    digest: str,
    scan: RunScan,
    options: Options,
    *,
    run_read: Told,
) -> Promotion | None:
    """Return the version that has this content already; None if none has, or a prune takes it in this moment.

    Nothing changes but in two cases: unless somebody holds the model, it is served if told to, or if its own
    promotion did not get that far. With endpoints, the version that is served is proven on them again. `run_read`
    is told before anything changes.

    Raises:
        VersionBad: That content is marked bad.
    """
    same = find_same(repo, model, digest=digest)
    if same is None:
        return None
    found = _result(repo, same, scan, options, same_as=same.version, proof=None)
    if not _is_to_be_served(repo, found, options):
        return found
    run_read()
    with writing(repo, dry_run=options.dry_run):
        same = find_same(repo, model, digest=digest)
        return _take_again(repo, same, scan, options) if same is not None else None


def _take_again(
    repo: Repository, same: VersionRecord, scan: RunScan, options: Options
) -> Promotion:
    """Do what `serve_again` holds the lock for: the version is there, and no prune comes in between."""
    promotion = _result(repo, same, scan, options, same_as=same.version, proof=None)
    if not _is_to_be_served(repo, promotion, options):
        return promotion
    switched = serve_now(
        repo,
        Reference(model=same.model, kind="number", number=same.version),
        manner=Manner(
            endpoints=options.endpoints,
            wait=options.wait,
            rules=options.rules,
            message=options.message,
            dry_run=options.dry_run,
        ),
    )
    return msgspec.structs.replace(
        promotion,
        served=True,
        before=switched.before,
        after=switched.after,
        endpoints=switched.endpoints,
        stages=switched.stages,
        notes=switched.notes,
        unproven=switched.unproven,
    )


def _is_to_be_served(repo: Repository, found: Promotion, options: Options) -> bool:
    """Tell whether a version that is there already is to be served, or proven again where it is.

    Its own promotion did not get that far if it was never served and is above what is.
    """
    held = found.held is not None
    unfinished = (
        options.serve is None
        and not held
        and found.version > max(found.before, default=0)
        and not _was_served(repo, found.model, found.version)
    )
    wanted = (options.serve and not held) or unfinished
    return wanted or (found.served and bool(options.endpoints))


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
    now = served_versions(repo, read_own_config(repo), record.model)
    return Promotion(
        model=record.model,
        version=record.version,
        gates=record.gates,
        doubts=record.doubts,
        unread=record.unread,
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


def pass_release_guards(
    repo: Repository,
    model: str,
    inspection: Inspection,
    config: ModelConfig,
    options: Options,
) -> Guard:
    """Compare with the contract, or what is served now, and with what the target server can run.

    Raises:
        UnsupportedExport, BreakingChange, UnsafeOperation: As they say.
    """
    if options.serve is not False:
        refuse_lacking_servers(inspection.path, inspection.demands, options.rules)
    return pass_guards(
        inspection,
        model=model,
        baseline=find_baseline(repo, model, config=config, contract=options.contract),
        target=options.target,
        allow_breaking=options.allow_breaking,
        allow_ops=options.allow_ops,
    )
