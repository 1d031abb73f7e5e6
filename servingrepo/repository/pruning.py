"""Prune versions into the trash, restore them from it, and empty it.

A prune renames each version into the model's trash. A restore compares every byte with the record and renames the
version back. Records stay where they are. Only emptying the trash deletes.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    NewerFormat,
    NoSuchVersion,
    NumberUsed,
    RepositoryDamaged,
    ServingRepoError,
    StorageFailed,
    VersionDamaged,
)
from servingrepo.repository import history, journal
from servingrepo.repository.config import refuse_elsewhere
from servingrepo.repository.journal import Intent
from servingrepo.repository.protection import (
    labels_ever,
    protections,
    read_surroundings,
    refuse_deployment,
)
from servingrepo.repository.records import ADOPTED
from servingrepo.repository.recovery import say_if_happened, settle
from servingrepo.repository.repository import (
    Repository,
    load_head,
    load_record,
    me,
    model_names,
    names_on_disk,
    need_state,
    new_txid,
    save_state,
)
from servingrepo.repository.retention import Candidate, Decision, Keep, decide, need_policies
from servingrepo.repository.snapshot import snapshot_of
from servingrepo.repository.transaction import new_event, recorded, writing
from servingrepo.repository.trash import (
    Trashed,
    delete_condemned,
    deleting_place,
    drop_records,
    find_trashed,
    refuse_strange_trash,
    trash_place,
    trashed_versions,
    tree_bytes,
    what_happened,
)
from servingrepo.repository.version_lock import alone, using
from servingrepo.storage.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from servingrepo.repository.protection import Foreseen, Loaded, Surroundings
    from servingrepo.repository.records import RecordHead, VersionRecord
    from servingrepo.storage.progress import Progress

_UNREADABLE = "its record cannot be read, so nothing is known of it"
_ADOPTED = "adopted: only --adopted lets it go"
_LATE_USE = "in use: another command began to verify or smoke-test it"


class ModelPruned(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions of a prune on one model's versions."""

    model: str
    policy: str
    decisions: tuple[Decision, ...]

    @property
    def gone(self) -> tuple[int, ...]:
        """The versions that went, or would go in a dry run."""
        return tuple(one.version for one in self.decisions if not one.keep)


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a prune, or of its dry run.

    `moved` is the size of the versions that went to the trash; this frees no space. `freed` is the space that
    deletion freed. `trash_size` is what the trash takes now. The last two are bytes on disk.
    """

    models: tuple[ModelPruned, ...] = ()
    emptied: tuple[Emptied, ...] = ()
    moved: int = 0
    freed: int = 0
    trash_size: int = 0
    dry_run: bool = False


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The version that a restore brought back, or would in a dry run. Every byte was compared with the record."""

    model: str
    version: int
    path: str
    files: int
    size: int
    bad: str | None
    dry_run: bool


def prune(
    repo: Repository,
    policies: Mapping[str, Keep],
    *,
    loaded: Loaded | None = None,
    adopted: bool = False,
    message: str = "",
    dry_run: bool = False,
) -> tuple[ModelPruned, ...]:
    """Move the versions that no rule keeps and nothing protects to the trash, each model by its policy.

    All decisions come before the first move. Unmanaged versions, which have no record, stay, and so do adopted ones
    unless `adopted` lets them go.

    Raises:
        UsageError: A policy is empty.
        NoSuchVersion: There is no such model.
        ConfigInvalid: models.config cannot be read, or has a model elsewhere, so it is unknown what is served.
        StorageFailed: A trash cannot be used.
    """
    need_policies(policies)
    with writing(repo, dry_run=dry_run):
        around = read_surroundings(repo, policies)
        refuse_elsewhere(repo, around.config, *policies)
        plans = [
            _decided(repo, model, keep, around, loaded=loaded or {}, adopted=adopted)
            for model, keep in policies.items()
        ]
        if dry_run:
            return tuple(plans)
        for plan in plans:
            if plan.gone:
                refuse_strange_trash(repo.layout, plan.model)
        done: list[ModelPruned] = []
        for plan in plans:
            try:
                done.append(_carry_out(repo, plan, message=message) if plan.gone else plan)
            except ServingRepoError as error:
                error.problems = (*error.problems, *_already(done))
                raise
        return tuple(done)


def foresee(repo: Repository, model: str, keep: Keep, foreseen: Foreseen) -> ModelPruned:
    """Return what a prune would decide after a promotion. It changes nothing and does not ask live servers.

    Raises:
        UsageError: The policy is empty.
        ConfigInvalid: models.config cannot be read.
    """
    need_policies({model: keep})
    around = read_surroundings(repo, (model,))
    return _decided(repo, model, keep, around, loaded={}, foreseen=foreseen)


def _decided(
    repo: Repository,
    model: str,
    keep: Keep,
    around: Surroundings,
    *,
    loaded: Loaded,
    adopted: bool = False,
    foreseen: Foreseen | None = None,
) -> ModelPruned:
    now = snapshot_of(repo, model, around.config)
    # Only a foreseen promotion may be the first of its model, which has no state yet.
    if now.state is None and foreseen is None:
        need_state(repo, model)
    protected = protections(repo, now, around, loaded=loaded, foreseen=foreseen)
    labels = labels_ever(repo, model, around) if keep.labelled else {}
    candidates = []
    for version in now.published:
        head, reasons = None, protected[version]
        try:
            head = load_head(repo, model, version)
        except (RepositoryDamaged, NewerFormat):
            reasons = (*reasons, _UNREADABLE)
        if head is not None and head.source.kind == ADOPTED and not adopted:
            reasons = (*reasons, _ADOPTED)
        candidates.append(
            Candidate(
                version=version,
                created=_made(head) if head is not None else "",
                size=head.size if head is not None else 0,
                bad=version in now.bad,
                labels=labels.get(version, ()),
                protected=reasons,
            )
        )
    if foreseen is not None and foreseen.version not in now.published:
        candidates.append(
            Candidate(
                version=foreseen.version,
                created=repo.now(),
                size=foreseen.size,
                protected=protected[foreseen.version],
            )
        )
    decisions = decide(candidates, keep, now=repo.clock())
    return ModelPruned(model=model, policy=str(keep), decisions=decisions)


def _made(head: RecordHead) -> str:
    """Return when a version was made: an adopted one when it was written, not when it was adopted."""
    return (
        head.source.provenance.get("modified", head.created)
        if head.source.kind == ADOPTED
        else head.created
    )


def _carry_out(repo: Repository, plan: ModelPruned, *, message: str) -> ModelPruned:
    """Move the versions that go. A version that another command began to read meanwhile stays."""
    model = plan.model
    gone = tuple(sorted(plan.gone))
    event = new_event(
        repo,
        txid=new_txid(repo),
        action="prune",
        model=model,
        versions=gone,
        why=message or f"keep {plan.policy}",
    )
    late: set[int] = set()
    repo.disk.make_directory(repo.layout.trash(model))
    with recorded(repo, event):
        for version in gone:
            with alone(repo, model, version) as free:
                if not free:
                    late.add(version)
                    continue
                place = trash_place(repo.layout, model, version, event.id)
                _move(repo, repo.layout.version(model, version), place, step="trash")
    decisions = tuple(
        msgspec.structs.replace(one, keep=True, reasons=(_LATE_USE,))
        if one.version in late
        else one
        for one in plan.decisions
    )
    return msgspec.structs.replace(plan, decisions=decisions)


def _move(repo: Repository, source: Path, target: Path, *, step: str) -> None:
    """Rename a version durably; the target must not exist.

    A rename is one change of the file system: when it is durable in one directory, it is durable in both.
    """
    with storage_errors("move", source):
        try:
            repo.disk.publish_directory(source, target, step=step)
        except FileExistsError as error:
            raise NumberUsed(
                f"{target} is there already; {source} was left where it is",
                hint="find out which process writes there",
            ) from error
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise StorageFailed(
                    f"cannot move {source} to {target}: they are on different file systems",
                    hint="the trash must be on the file system of the versions, so that a move is one "
                    "rename; unmount what is there",
                ) from error
            raise


def _already(done: Sequence[ModelPruned]) -> Iterator[str]:
    for one in done:
        if one.gone:
            listed = ", ".join(map(str, one.gone))
            yield f"versions of {one.model} that went to the trash before: {listed}"


def restore(
    repo: Repository,
    model: str,
    version: int,
    *,
    message: str = "",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Restored:
    """Compare every byte of a version in the trash with its record, and bring it back. This does not serve it.

    Raises:
        NoSuchVersion: It is not in the trash.
        VersionDamaged: It differs from its record; the error lists how, and it stays in the trash.
        NumberUsed: Another file or directory has its place.
        ConfigInvalid: Servers would load it as soon as its directory is there.
    """
    from servingrepo.repository.verification import compare_with_record

    state = need_state(repo, model)
    _need_trashed(repo, model, version)
    # The long part runs without the lock, so that no rollback waits for it.
    with using(repo, model, version):
        found, record = _need_trashed(repo, model, version)  # from here on no prune deletes it
        try:
            differences = compare_with_record(Path(found.path), record, progress=progress)
        except StorageFailed:
            _need_trashed(repo, model, version)  # another restore may have taken it meanwhile
            raise
        if differences:
            _need_trashed(repo, model, version)
            raise VersionDamaged(
                f"{model}@{version} in the trash is not what its record says; it was left there",
                problems=differences.lines(),
                hint="promote its run again; servingrepo prune --empty-trash deletes the trash",
                details={"path": found.path},
            )
        refuse_strange_trash(repo.layout, model)
    with writing(repo, dry_run=dry_run):
        found, record = _need_trashed(repo, model, version)
        _refuse_taken(repo, model, version)
        refuse_deployment(repo, model, version)
        target = repo.layout.version(model, version)
        if not dry_run:
            event = new_event(
                repo,
                txid=new_txid(repo),
                action="restore",
                model=model,
                version=version,
                versions=(version,),
                why=message,
            )
            with recorded(repo, event):
                _move(repo, Path(found.path), target, step="restore")
    mark = state.bad.get(version)
    return Restored(
        model=model,
        version=version,
        path=str(target),
        files=len(record.manifest.files),
        size=record.size,
        bad=(mark.reason or "no reason given") if mark is not None else None,
        dry_run=dry_run,
    )


def _need_trashed(repo: Repository, model: str, version: int) -> tuple[Trashed, VersionRecord]:
    found = find_trashed(repo.layout, model, version)
    if found is None:
        listed = ", ".join(str(one.version) for one in trashed_versions(repo.layout, model))
        there = repo.layout.version(model, version).exists()
        where = "it is on disk" if there else "nothing is known of where it could be"
        raise NoSuchVersion(
            f"{model}@{version} is not in the trash: {where}",
            hint=f"in the trash of {model}: {listed or 'nothing'}",
        )
    record = load_record(repo, model, version)
    if record is None:
        raise RepositoryDamaged(
            f"{found.path} has no record: nothing says what {model}@{version} was",
            hint=f"restore {repo.layout.record(model, version)} from a backup, or promote its run again",
        )
    return found, record


def _refuse_taken(repo: Repository, model: str, version: int) -> None:
    taken = (names_on_disk(repo, model) or {}).get(version)
    if taken:
        raise NumberUsed(
            f"{repo.layout.model(model) / taken[0]} has the place of {model}@{version}; it was left alone",
            hint="find out who wrote it, move it away, then restore again",
        )


_IN_USE = "in use: another command verifies or restores it"


class Emptied(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the trash, and whether it was deleted or why it was kept. `freed` is in bytes on disk."""

    model: str
    version: int
    deleted: bool
    freed: int
    reason: str


def empty_trash(
    repo: Repository,
    models: Iterable[str] = (),
    *,
    older_than: timedelta | None = None,
    message: str = "",
    dry_run: bool = False,
) -> tuple[Emptied, ...]:
    """Delete all versions in the trash for good, or those that went there longer ago than `older_than`.

    Their numbers stay burnt, and their bad marks stay. A version whose time is ahead of the clock counts as new.

    Args:
        repo: The repository.
        models: The models whose trash to empty; all by default.
        older_than: How long ago a version must have gone there, by the time in its name.
        message: The reason, for the history.
        dry_run: Only say what would be deleted.

    Raises:
        NoSuchVersion: There is no such model.
        StorageFailed: Files cannot be removed. The versions are gone all the same, and the next command that writes
            removes the rest.
    """
    names = tuple(models)
    rows: list[Emptied] = []
    with ExitStack() as stack:
        doomed: list[Path] = []
        with writing(repo, dry_run=dry_run):
            for model in names or model_names(repo):
                need_state(repo, model)
                refuse_strange_trash(repo.layout, model)
                chosen: list[Trashed] = []
                for one in trashed_versions(repo.layout, model):
                    reason = _why_kept(repo, one, older_than=older_than)
                    rows.append(_row(one, reason))
                    if not reason:
                        chosen.append(one)
                if chosen and not dry_run:
                    doomed += stack.enter_context(_condemned(repo, model, chosen, message))
        try:
            for path in doomed:
                delete_condemned(repo.disk, path)
        except ServingRepoError as error:
            gone = ", ".join(f"{one.model}@{one.version}" for one in rows if one.deleted)
            problem = (
                f"gone for good all the same: {gone}; the next command that writes removes the rest"
            )
            error.problems = (*error.problems, problem)
            raise
    return tuple(rows)


def _why_kept(repo: Repository, one: Trashed, *, older_than: timedelta | None) -> str:
    """Say why a version stays in the trash; empty if it may go."""
    if older_than is not None:
        since = one.since
        if since is None:
            return "since when it is in the trash is unknown"
        if repo.clock() - since < older_than:
            return f"in the trash only since {since:%Y-%m-%dT%H:%M:%S}"
    if repo.layout.record(one.model, one.version).exists():
        with alone(repo, one.model, one.version) as free:
            return "" if free else _IN_USE
    return ""


def _row(one: Trashed, reason: str) -> Emptied:
    return Emptied(
        model=one.model,
        version=one.version,
        deleted=not reason,
        freed=tree_bytes(Path(one.path)) if not reason else 0,
        reason=reason,
    )


@contextmanager
def _condemned(
    repo: Repository, model: str, chosen: list[Trashed], message: str
) -> Iterator[list[Path]]:
    """Make versions gone, durably and on record; give the block the directories to delete, under a live intent.

    The caller holds the lock at the begin of the block, but not at its end. The highest number goes into the model's
    state: until now perhaps only the record kept it burnt, and the record is removed.
    """
    layout, disk = repo.layout, repo.disk
    event = new_event(
        repo,
        txid=new_txid(repo),
        action="empty-trash",
        model=model,
        versions=tuple(one.version for one in chosen),
        why=message,
    )
    intent = Intent(txid=event.id, command=event.action, owner=me(), model=model, event=event)
    with journal.declare(disk, layout.intent(event.id), intent):
        try:
            state = need_state(repo, model)
            highest = max(one.version for one in chosen)
            if state.highest < highest:
                save_state(repo, msgspec.structs.replace(state, highest=highest))
            places = [deleting_place(layout, model, one.version, event.id) for one in chosen]
            for one, place in zip(chosen, places, strict=True):
                with storage_errors("delete", Path(one.path)):
                    disk.publish_directory(Path(one.path), place, step="condemn")
            drop_records(repo.layout, repo.disk, model, event.versions)
            history.append(disk, layout.history, what_happened(layout, event))
        except BaseException as error:
            with suppress(ServingRepoError):
                say_if_happened(repo, intent, error)
                settle(repo, intent)
            raise
        yield places
