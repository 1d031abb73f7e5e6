"""prune: moves old versions to the trash, unless a server has them loaded, and empties the trash if asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import EndpointUnreachable, ServingRepoError
from servingrepo.fleet.plans import plan_serve
from servingrepo.fleet.switch import connect
from servingrepo.modelconfig import check_name
from servingrepo.repository.config import read_config, refuse_elsewhere
from servingrepo.repository.history import Move
from servingrepo.repository.listing import summed_trash
from servingrepo.repository.protection import Foreseen, served_folders
from servingrepo.repository.pruning import Emptied, ModelPruned, Pruned, empty_trash, foresee
from servingrepo.repository.pruning import prune as prune_by
from servingrepo.repository.records import SCHEMA
from servingrepo.repository.repository import model_names, need_state
from servingrepo.repository.retention import policies_for
from servingrepo.repository.snapshot import read_snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import timedelta

    from servingrepo.repository.protection import Loaded
    from servingrepo.repository.repository import Repository
    from servingrepo.repository.retention import Keep
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.states import Endpoint, VersionStatus
    from servingrepo.verbs.options import PromoteOptions, PruneOptions
    from servingrepo.verbs.values import Promotion

_CALL_SECONDS = 5.0


def prune(repo: Repository, models: Sequence[str], options: PruneOptions) -> Pruned:
    """Move versions that no rule of a policy keeps to the trash; see `servingrepo prune`.

    `keep` is a policy for all models, or a policy by model. Without it `prune` only empties the trash. `empty_trash`
    then deletes for good what is in the trash; with `older_than`, only what has been there for longer than that.

    Raises:
        UsageError: The policy is empty, or there is nothing to do.
        ConfigInvalid: models.config cannot be read, so the served versions are not known.
        EndpointUnreachable: An endpoint does not say which versions it has loaded.
    """
    names = tuple(dict.fromkeys(map(check_name, models))) or model_names(repo)
    only_empties = options.keep is None and options.empty_trash
    return prune_models(
        repo,
        {} if only_empties else policies_for(names, options.keep),
        adopted=options.adopted,
        emptying=names if options.empty_trash else (),
        older_than=options.older_than,
        endpoints=options.fleet,
        message=options.message,
        dry_run=options.dry_run,
    )


def prune_models(
    repo: Repository,
    policies: Mapping[str, Keep],
    *,
    adopted: bool = False,
    emptying: Collection[str] = (),
    older_than: timedelta | None = None,
    endpoints: Sequence[Endpoint] = (),
    message: str = "",
    dry_run: bool = False,
) -> Pruned:
    """Prune each model by its policy, then empty the trash of those in `emptying`.

    Raises:
        UsageError: A policy is empty.
        ConfigInvalid: models.config cannot be read, or has a model elsewhere; nothing was changed.
        EndpointUnreachable: An endpoint does not say which versions it has loaded; nothing was changed.
        ServingRepoError: As `prune` and `empty_trash` say.
    """
    refuse_elsewhere(repo, read_config(repo).config, *policies)
    for model in {*policies, *emptying}:
        need_state(repo, model)
    pruned: tuple[ModelPruned, ...] = ()
    if policies:
        loaded = loaded_on(repo, endpoints, tuple(policies))
        pruned = prune_by(
            repo, policies, loaded=loaded, adopted=adopted, message=message, dry_run=dry_run
        )
    emptied: tuple[Emptied, ...] = ()
    if emptying:
        try:
            emptied = empty_trash(
                repo, emptying, older_than=older_than, message=message, dry_run=dry_run
            )
        except ServingRepoError as error:
            gone = [f"{one.model}@{version}" for one in pruned for version in one.gone]
            if gone and not dry_run:
                error.problems = (*error.problems, f"pruned before that: {', '.join(gone)}")
            raise
    gone_now = [one for row in pruned for one in row.decisions if not one.keep]
    return Pruned(
        models=pruned,
        emptied=emptied,
        moved=sum(one.size for one in gone_now),
        freed=sum(one.freed for one in emptied),
        trash_size=sum(summed_trash(repo, name)[1] for name in model_names(repo)),
        dry_run=dry_run,
    )


def loaded_on(repo: Repository, endpoints: Sequence[Endpoint], names: Sequence[str]) -> Loaded:
    """Return the versions that servers have loaded or try to load, by model, each with the states as reasons.

    Entries with another name may have the same folder as a model: their versions count too.

    Raises:
        EndpointUnreachable: A server does not answer.
    """
    found: Loaded = {}
    if not endpoints:
        return found
    folders = served_folders(repo, read_config(repo).config)
    for endpoint in endpoints:
        with connect(endpoint) as server:
            for name in names:
                names_of_folder = {name, *(one.name for one in folders.of(repo, name))}
                for other in sorted(names_of_folder):
                    try:
                        states = _loaded(server, other)
                    except ServingRepoError as error:
                        raise EndpointUnreachable(
                            f"{endpoint} does not say what it has loaded, so nothing was pruned: "
                            f"{error.message}",
                            hint="try again when it answers, or leave this endpoint out: prune keeps "
                            "what models.config pins in any case",
                        ) from error
                    for one in states:
                        reasons = found.setdefault(name, {}).get(one.version, ())
                        reason = f"{one.state} on {endpoint}"
                        found[name][one.version] = (*reasons, reason)
    return found


def _loaded(server: ServingClient, model: str) -> list[VersionStatus]:
    """Return the versions that a server has loaded or tries to load.

    A version that it calls AVAILABLE and that does not answer is gone.
    """
    return [
        one
        for one in server.status(model, timeout=_CALL_SECONDS)
        if one.state != "END"
        and (one.state != "AVAILABLE" or server.answers(model, one.version, timeout=_CALL_SECONDS))
    ]


def prune_after(repo: Repository, done: Promotion, options: PromoteOptions) -> Promotion:
    """Prune the promoted model by the policy of the options, if they have one, as a change of its own.

    A failure does not undo the promotion: the result has both. A dry run says which versions would go.
    """
    model, keep = options.model, options.keep
    if keep is None:
        return done
    because = f"after the promotion of {model}@{done.version}"
    try:
        pruned = (
            _foreseen(repo, done, keep)
            if options.dry_run
            else prune_models(
                repo, {model: keep}, endpoints=options.fleet, message=f"{because}: keep {keep}"
            )
        )
    except ServingRepoError as error:
        failed = "; ".join([error.message, *error.problems])
        return msgspec.structs.replace(done, prune_failed=failed)
    except BaseException as interruption:
        interruption.add_note(f"this was {because}, which has happened all the same")
        raise
    return msgspec.structs.replace(done, pruned=pruned)


def _foreseen(repo: Repository, planned: Promotion, keep: Keep) -> Pruned:
    """Return the prune that would follow the promotion of a dry run."""
    model = planned.model
    now = read_snapshot(repo, model)
    serves = planned.before != planned.after
    config = plan_serve(now, planned.version).after if serves else now.config
    foreseen = Foreseen(
        version=planned.version,
        size=planned.size,
        config=config,
        move=Move(schema=SCHEMA, before=planned.before, after=planned.after),
    )
    row = foresee(repo, model, keep, foreseen)
    return Pruned(
        models=(row,),
        moved=sum(one.size for one in row.decisions if not one.keep),
        trash_size=sum(summed_trash(repo, name)[1] for name in model_names(repo)),
        dry_run=True,
    )
