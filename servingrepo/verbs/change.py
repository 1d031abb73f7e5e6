"""Changes of what is served: refuses a plan or carries it out, and records it.

serve, unserve, rollback and label each make a plan of their own. What follows is the same for all of them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    ConfigInvalid,
    ServingRepoError,
    SwitchFailed,
    VersionBad,
    VersionDamaged,
)
from servingrepo.fleet.hooks import HookResult
from servingrepo.fleet.steps import EndpointResult
from servingrepo.fleet.switch import Followed, switch
from servingrepo.repository.config import check_config, read_own_config
from servingrepo.repository.overtaking import running_promotions
from servingrepo.repository.records import StageVerdict
from servingrepo.repository.recovery import with_bad_mark
from servingrepo.repository.repository import (
    load_head,
    load_record,
    need_state,
    need_version,
    new_txid,
    published_versions,
    quick_differences,
    save_state,
)
from servingrepo.repository.transaction import append_event, new_event, recorded
from servingrepo.verbs.compatibility import say_changes
from servingrepo.verbs.unproven import refuse_lacking_servers, say_unproven

if TYPE_CHECKING:
    from servingrepo.fleet.options import LiveOptions
    from servingrepo.fleet.plans import Plan
    from servingrepo.repository.history import Event
    from servingrepo.repository.records import ModelState
    from servingrepo.repository.repository import Repository
    from servingrepo.repository.snapshot import Snapshot


class Switched(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a change of what is served, or of its dry run.

    `notes` warns of clients of the version before whom the change breaks. That never stops a change.
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
    """Promotions of this model that run right now: they will publish their version without serving it."""
    hooks: tuple[HookResult, ...] = ()
    notes: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    """The parts of the version that nothing has proven, although clients get it now."""
    stages: tuple[StageVerdict, ...] = ()
    by_number: bool = False
    """A rollback went to the next lower adopted version, because history knows none that was served before."""
    both_loaded: int = 0
    """Bytes on disk of all versions that a server has loaded at once while it switches."""

    @property
    def served_before(self) -> int | None:
        """The version that unlabelled clients got."""
        return max(self.before, default=None)

    @property
    def served_after(self) -> int | None:
        """The version that unlabelled clients get now."""
        return max(self.after, default=None)


def need_servable(repo: Repository, model: str, version: int) -> None:
    """Refuse to serve a version that is missing, marked bad or damaged.

    This compares the names and sizes of files with the record. A rollback has no time to compare their bytes.

    Raises:
        NoSuchVersion, VersionBad, VersionDamaged: The version is one of these.
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


def carry_out(
    repo: Repository,
    now: Snapshot,
    plan: Plan,
    options: LiveOptions,
    *,
    action: str,
    marks_bad: int | None = None,
) -> Switched:
    """Carry a plan out and record it. A plan that changes nothing still proves the endpoints.

    The caller holds the lock.

    Raises:
        ConfigInvalid, UnsupportedExport: Servers would refuse the config, or cannot run the version.
        EndpointUnreachable, SwitchFailed: An endpoint did not follow; everything is as it was.
    """
    refuse_unfit(repo, plan, of_model=True, of_others=bool(options.fleet))
    record = load_record(repo, plan.model, plan.version) if plan.version is not None else None
    if record is not None and action != "rollback":
        refuse_lacking_servers(f"{plan.model}@{plan.version}", record.demands, options.fleet_rules)
    notes: tuple[str, ...] = ()
    if record is not None and plan.version != max(plan.old_pins, default=None):
        notes = say_changes(repo, plan.model, record.signatures)
    followed = Followed()
    if not options.dry_run:
        followed = (
            _switch_and_record(
                repo, plan, now.state, action=action, options=options, marks_bad=marks_bad
            )
            if plan.changes
            else switch(repo, plan, options)
        )
    return Switched(
        action=action,
        model=plan.model,
        before=plan.old_pins,
        after=plan.new_pins,
        labels_before=plan.old_labels,
        labels=plan.new_labels,
        changed=plan.changes,
        dry_run=options.dry_run,
        marked_bad=marks_bad,
        held=now.hold is not None,
        endpoints=followed.endpoints,
        stages=followed.stages,
        notes=notes,
        unproven=_unproven(repo, plan, options),
        both_loaded=_size(repo, plan) if plan.version is not None and plan.changes else 0,
        promoting=running_promotions(repo, plan.model) if action != "label" else (),
    )


def _switch_and_record(
    repo: Repository,
    plan: Plan,
    state: ModelState | None,
    *,
    action: str,
    options: LiveOptions,
    marks_bad: int | None,
) -> Followed:
    event = new_event(
        repo,
        txid=new_txid(repo),
        action=action,
        model=plan.model,
        version=plan.version,
        before=plan.old_pins,
        after=plan.new_pins,
        why=options.message,
        marked_bad=marks_bad,
        labels_before=plan.old_labels,
        labels_after=plan.new_labels,
        endpoints=tuple(map(str, options.fleet)),
    )
    try:
        with recorded(repo, event) as recording:
            followed = switch(repo, plan, options)
            recording.event = msgspec.structs.replace(event, stages=followed.stages)
            if marks_bad is not None and state is not None:
                repo.disk.step("rollback.before-bad-mark")
                save_state(repo, with_bad_mark(repo, state, marks_bad, event))
    except SwitchFailed as failed:
        _record_stopped_stage(repo, plan, event, failed)
        raise
    return followed


def _record_stopped_stage(repo: Repository, plan: Plan, event: Event, failed: SwitchFailed) -> None:
    """Record in the history why a stage was stopped, if the switch put everything back."""
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
    append_event(repo, stopped)


def _unproven(repo: Repository, plan: Plan, options: LiveOptions) -> tuple[str, ...]:
    """Return the parts of the version that nothing has proven, if this change brings it to clients."""
    if plan.version is None or plan.old_pins == plan.new_pins:
        return ()
    live = bool(options.fleet)
    return say_unproven(repo, plan.model, plan.version, options.fleet_rules, live=live)


def _size(repo: Repository, plan: Plan) -> int:
    """Return the bytes of old and new versions together, as far as records are readable.

    An unreadable record must not stop a rollback.
    """
    size = 0
    for version in {*plan.old_pins, *plan.new_pins}:
        with suppress(ServingRepoError):
            head = load_head(repo, plan.model, version)
            size += head.size if head is not None else 0
    return size


def refuse_unfit(repo: Repository, plan: Plan, *, of_model: bool, of_others: bool) -> None:
    """Refuse a config that servers would refuse or hang on.

    A reload sends the entries of all models to a server. So mistakes `of_others` count too if there are endpoints.

    Raises:
        ConfigInvalid: The config has such mistakes; the error lists all that count.
    """
    only = None if of_others else plan.model
    found = [
        finding
        for finding in check_config(repo, plan.after, only=only)
        if finding.severity == "error" and (of_model if finding.model == plan.model else of_others)
    ]
    if found:
        about_labels = any(one.field == "version_labels" for one in found)
        published = published_versions(repo, plan.model)
        missing = sorted(label for label, at in plan.new_labels.items() if at not in published)
        raise ConfigInvalid(
            f"TensorFlow Serving would refuse the config that serves {plan.model}, or hang on it",
            problems=map(str, found),
            hint=f"nothing was changed; servingrepo label remove {plan.model} {' '.join(missing)} removes the labels "
            "of missing versions all at once"
            if about_labels and missing
            else "nothing was changed; servingrepo config check shows all mistakes",
        )
