"""serve, unserve, rollback, reload: which version is served, decided, switched, proven and recorded."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import (
    ConfigInvalid,
    NothingToRollBack,
    ServingRepoError,
    SwitchFailed,
    VersionBad,
    VersionDamaged,
)
from servingrepo.fleet import live
from servingrepo.fleet.going_back import say_both_paths
from servingrepo.fleet.hooks import HookResult
from servingrepo.fleet.parallel import each, together
from servingrepo.fleet.plans import Plan, plan_rollback, plan_serve, plan_unserve
from servingrepo.fleet.steps import EndpointResult
from servingrepo.fleet.switch import Followed, connect, switch
from servingrepo.modelconfig import entry, models
from servingrepo.repository import history
from servingrepo.repository.changes import new_event, recorded, with_bad_mark, writing
from servingrepo.repository.lagging import (
    Straggler,
    forget_stragglers,
    note_stragglers,
)
from servingrepo.repository.records import RecordHead, StageVerdict, load
from servingrepo.repository.references import (
    Reference,
    previous_version,
    resolve,
)
from servingrepo.repository.repository import (
    load_record,
    load_state,
    need_state,
    need_version,
    new_txid,
    published_versions,
    save_state,
)
from servingrepo.repository.served import (
    check_config,
    read_config_of,
    read_own_config,
    served_versions,
)
from servingrepo.repository.snapshot import read_snapshot
from servingrepo.repository.verification import quick_differences
from servingrepo.verbs.guards import say_changes
from servingrepo.verbs.overtaking import running_promotions
from servingrepo.verbs.unproven import refuse_lacking_servers, say_unproven

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.fleet.rules import Manner
    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.history import Event
    from servingrepo.repository.repository import Repository
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.states import Endpoint


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of what is served did, or would do in a dry run.

    `notes` says how clients of what was served before are broken: a warning, never a reason to stop.
    """

    action: str
    model: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    labels_before: dict[str, int]
    labels: dict[str, int]
    changed: bool
    dry_run: bool
    marked_bad: int | None
    held: bool
    endpoints: tuple[EndpointResult, ...]
    promoting: tuple[str, ...] = ()
    """Promotions of this model that run right now: they will publish, and not serve."""
    hooks: tuple[HookResult, ...] = ()
    notes: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    """What nobody has proven of the version that clients get now."""
    stages: tuple[StageVerdict, ...] = ()
    both_loaded: int = 0
    """Bytes on disk of all versions that a server has loaded at once while it switches."""

    @property
    def served_before(self) -> int | None:
        """What unlabelled clients got."""
        return max(self.before, default=None)

    @property
    def served_after(self) -> int | None:
        """What unlabelled clients get now."""
        return max(self.after, default=None)


def serve(
    repo: Repository,
    reference: Reference,
    *,
    manner: Manner,
) -> Switched:
    """Serve a version: pin it in models.config, after every endpoint answers with it.

    Raises:
        NoSuchVersion, VersionBad, VersionDamaged: The version cannot be served.
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    with writing(repo, dry_run=manner.dry_run):
        return serve_now(repo, reference, manner=manner)


def serve_now(repo: Repository, reference: Reference, *, manner: Manner) -> Switched:
    """Do what `serve` does, for a caller that holds the lock already."""
    model = reference.model
    config = read_config_of(repo, model)
    version = resolve(repo, reference, bare="latest")
    need_servable(repo, model, version)
    plan = plan_serve(
        config,
        model=model,
        version=version,
        base_path=repo.base_path(model),
        serving=served_versions(repo, config, model),
    )
    return carry_out(repo, plan, action="serve", manner=manner)


def unserve(
    repo: Repository,
    model: str,
    *,
    manner: Manner,
) -> Switched:
    """Take a model out of models.config; its versions stay on disk."""
    with writing(repo, dry_run=manner.dry_run):
        config = read_config_of(repo, model)
        need_state(repo, model)
        plan = plan_unserve(config, model=model, serving=served_versions(repo, config, model))
        return carry_out(
            repo,
            plan,
            action="unserve",
            manner=manner,
        )


def rollback(
    repo: Repository,
    model: str,
    *,
    to: Reference | None = None,
    mark_bad: bool = True,
    manner: Manner,
) -> Switched:
    """Go back to the version served before, or to `to`: a pointer moves, no data does.

    In order: pin, prove, bad mark, history. The version that is left is marked bad, so that no pipeline brings
    it back, unless `mark_bad` is false. TensorFlow is not needed, nor space, nor a running promotion's end.

    Raises:
        ConfigEdited, ConfigInvalid: models.config is not as servingrepo wrote it, or has the model elsewhere.
        NothingToRollBack: History knows no earlier good version, or the target is served already.
        NoSuchVersion, VersionBad, VersionDamaged: The target cannot be served.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    with writing(repo, dry_run=manner.dry_run):
        config = read_config_of(repo, model)
        state = need_state(repo, model)
        serving = served_versions(repo, config, model)
        current = max(serving, default=None)
        version = (
            previous_version(repo, read_snapshot(repo, model)) if to is None else resolve(repo, to)
        )
        if version == current:
            raise NothingToRollBack(
                f"{model}@{version} is what is served already",
                hint=f"servingrepo history {model} shows what was served before; "
                f"servingrepo rollback {model} --to N names a version",
            )
        need_servable(repo, model, version)
        found = entry(config, model)
        labelled = set(found.labels.values()) if found is not None else set()
        plan = plan_rollback(
            config,
            model=model,
            version=version,
            base_path=repo.base_path(model),
            gone=labelled - set(published_versions(repo, model)),
            serving=serving,
        )
        leaves = current if mark_bad and current is not None else None
        switched = carry_out(
            repo,
            plan,
            action="rollback",
            manner=manner,
            marks_bad=leaves if leaves not in state.bad else None,
        )
        return msgspec.structs.replace(switched, marked_bad=leaves)


def carry_out(
    repo: Repository,
    plan: Plan,
    *,
    action: str,
    manner: Manner,
    marks_bad: int | None = None,
) -> Switched:
    """Switch and record; the caller holds the lock. A plan that changes nothing still proves endpoints."""
    refuse_unfit(repo, plan, of_model=True, of_others=bool(manner.endpoints))
    if plan.target is not None and action != "rollback":
        record = load_record(repo, plan.model, plan.target)
        demands = record.demands if record is not None else None
        refuse_lacking_servers(f"{plan.model}@{plan.target}", demands, manner.rules)
    notes = _warnings(repo, plan)
    state = load_state(repo, plan.model)
    followed = Followed()
    follow = partial(
        switch,
        repo,
        plan,
        endpoints=manner.endpoints,
        wait=manner.wait,
        rules=manner.rules,
    )
    if not manner.dry_run:
        if plan.changes:
            event = new_event(
                repo,
                txid=new_txid(repo),
                action=action,
                model=plan.model,
                version=plan.target,
                before=plan.old_pins,
                after=plan.new_pins,
                why=manner.message,
                marked_bad=marks_bad,
                labels_before=plan.old_labels,
                labels_after=plan.new_labels,
                endpoints=tuple(map(str, manner.endpoints)),
            )
            try:
                with recorded(repo, event) as recording:
                    followed = follow()
                    recording.event = msgspec.structs.replace(event, stages=followed.stages)
                    if marks_bad is not None and state is not None:
                        repo.disk.step("rollback.before-bad-mark")
                        save_state(repo, with_bad_mark(repo, state, marks_bad, event))
            except SwitchFailed as failed:
                _keep_stopped(repo, plan, event, failed)
                raise
        else:
            followed = follow()
    return Switched(
        action=action,
        model=plan.model,
        before=plan.old_pins,
        after=plan.new_pins,
        labels_before=plan.old_labels,
        labels=plan.new_labels,
        changed=plan.changes,
        dry_run=manner.dry_run,
        marked_bad=marks_bad,
        held=state is not None and state.hold is not None,
        endpoints=followed.endpoints,
        stages=followed.stages,
        notes=notes,
        unproven=_unproven(repo, plan, manner),
        both_loaded=_size(repo, plan) if plan.target is not None and plan.changes else 0,
        promoting=running_promotions(repo, plan.model) if action != "label" else (),
    )


def _keep_stopped(repo: Repository, plan: Plan, event: Event, failed: SwitchFailed) -> None:
    """Write into the history why a stage was stopped, if everything is back where it was."""
    if not failed.stages or read_own_config(repo) != plan.before:
        return
    stopped = msgspec.structs.replace(
        event,
        action="stage-stopped",
        after=event.before,
        labels_after=event.labels_before,
        marked_bad=None,
        stages=failed.stages,
    )
    history.append(repo.disk, repo.layout.history, stopped)


def _unproven(repo: Repository, plan: Plan, manner: Manner) -> tuple[str, ...]:
    """Say what was not proven of a version that clients get by this change, and did not before."""
    if plan.target is None or plan.old_pins == plan.new_pins:
        return ()
    live = bool(manner.endpoints)
    return say_unproven(repo, plan.model, plan.target, manner.rules, live=live)


def _warnings(repo: Repository, plan: Plan) -> tuple[str, ...]:
    """Say what the version that will be served breaks for clients of the one that is."""
    if plan.target is None or plan.target == max(plan.old_pins, default=None):
        return ()
    record = load_record(repo, plan.model, plan.target)
    return say_changes(repo, plan.model, record.signatures) if record is not None else ()


def _size(repo: Repository, plan: Plan) -> int:
    """Return how much old and new are together, as far as records tell: nothing here may stop a rollback."""
    size = 0
    for version in {*plan.old_pins, *plan.new_pins}:
        with suppress(ServingRepoError):
            head = load(repo.layout.record(plan.model, version), RecordHead)
            size += head.size if head is not None else 0
    return size


def refuse_unfit(repo: Repository, plan: Plan, *, of_model: bool, of_others: bool) -> None:
    """Refuse a config on which servers would hang, or which they would refuse whole.

    A server is sent the entries of all models, so with endpoints each of them counts.

    Raises:
        ConfigInvalid: It is one; all mistakes that count are listed.
    """
    found = [
        finding
        for finding in check_config(repo, plan.after)
        if finding.severity == "error" and (of_model if finding.model == plan.model else of_others)
    ]
    if found:
        about_labels = any(one.field == "version_labels" for one in found)
        published = published_versions(repo, plan.model)
        missing = sorted(label for label, at in plan.new_labels.items() if at not in published)
        raise ConfigInvalid(
            f"the config that would serve {plan.model} is one that TensorFlow Serving refuses or hangs on",
            problems=map(str, found),
            hint=f"servingrepo label remove {plan.model} {' '.join(missing)} takes away the labels of versions that "
            "went, all at once; nothing was changed"
            if about_labels and missing
            else "servingrepo config check shows all of it; nothing was changed",
        )


def need_servable(repo: Repository, model: str, version: int) -> None:
    """Refuse to serve a version that is not there, is marked bad, or has lost files.

    Names and sizes are compared with the record, bytes are not: there is no time for that in a rollback.

    Raises:
        NoSuchVersion, VersionBad, VersionDamaged: As they say.
    """
    state = need_state(repo, model)
    mark = state.bad.get(version)
    if mark is not None:
        raise VersionBad(
            f"{model}@{version} was marked bad by {mark.user}@{mark.host} on {mark.time}: "
            f"{mark.reason or 'no reason given'}",
            hint=f"serve another version, or servingrepo mark-bad {model}@{version} --clear",
        )
    record = need_version(repo, model, version)
    differences = quick_differences(repo, record)
    if differences:
        raise VersionDamaged(
            f"{model}@{version} is not what its record says; nothing was changed",
            problems=differences.lines(),
            hint=f"servingrepo verify {model}@{version} checks every byte; serve another version",
        )


class Reloaded(msgspec.Struct, frozen=True):
    """What `reload` made endpoints serve."""

    models: dict[str, tuple[int, ...]]
    endpoints: tuple[EndpointResult, ...]
    dry_run: bool


def reload(
    repo: Repository,
    *,
    endpoints: Sequence[Endpoint],
    wait: float,
    poll: bool = False,
    dry_run: bool = False,
) -> Reloaded:
    """Send models.config to the endpoints, and wait until each pinned version answers everywhere.

    Labels are sent in a second step, when their versions are loaded: TF Serving checks them against what is
    loaded now. Servers that `poll` the file are only waited for.

    Raises:
        ConfigInvalid: The config is one that a server would refuse or hang on; it was not sent.
        EndpointUnreachable, ServerTimeout, LoadFailed, RequestRefused: As they say.
    """
    with writing(repo, dry_run=dry_run):
        config = read_own_config(repo, replaces=False)
        problems = [str(one) for one in check_config(repo, config) if one.severity == "error"]
        if problems:
            raise ConfigInvalid(
                f"{repo.layout.config} is one that TensorFlow Serving would refuse or hang on; it was not sent",
                problems=problems,
                hint="servingrepo config check shows what to do about each",
            )
        wanted = {one.name: one.versions for one in models(config)}
        results: tuple[EndpointResult, ...] = ()
        if not dry_run:
            results = _converge_all(repo, config, endpoints, wait=wait, poll=poll)
    return Reloaded(models=wanted, endpoints=results, dry_run=dry_run)


def _converge_all(
    repo: Repository,
    config: ModelConfig,
    endpoints: Sequence[Endpoint],
    *,
    wait: float,
    poll: bool,
) -> tuple[EndpointResult, ...]:
    """Bring every endpoint to the config, all at once; one that fails keeps none of the others from it."""
    deadline = Deadline.after(wait)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(endpoint)) for endpoint in endpoints]

        def follow(client: ServingClient) -> EndpointResult:
            live.check_reachable(client, deadline=deadline)
            live.converge(client, config, deadline=deadline, poll=poll)
            return EndpointResult(str(client.endpoint), "serves models.config")

        answers = each(clients, follow)
    done = tuple(answer.value for answer in answers if answer.value is not None)
    forget_stragglers(repo, (one.endpoint for one in done))
    doubtful = [
        Straggler(
            endpoint=str(answer.of.endpoint),
            since=repo.now(),
            why=answer.error.message,
            uncertain=True,
        )
        for answer in answers
        if answer.error is not None and answer.error.details.get("uncertain")
    ]
    if doubtful:
        note_stragglers(repo, doubtful)
    errors = [answer.error for answer in answers if answer.error is not None]
    if errors:
        error = together(errors)
        say_both_paths(repo, error)
        error.problems = (*error.problems, *(f"{one.endpoint}: {one.outcome}" for one in done))
        raise error
    return done
