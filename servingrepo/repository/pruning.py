"""Taking versions out of sight, and bringing them back: no byte is deleted here.

A prune is one rename per version into the model's trash; `restore` is the rename back, after every byte was
compared with the record. Records stay where they are. emptying.py deletes.
"""

from __future__ import annotations

import errno
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
from servingrepo.repository.changes import new_event, recorded, writing
from servingrepo.repository.emptying import Emptied
from servingrepo.repository.protection import labels_ever, protections, refuse_deployment
from servingrepo.repository.records import RecordHead, VersionRecord, load
from servingrepo.repository.repository import (
    Repository,
    load_record,
    load_state,
    names_on_disk,
    need_state,
    new_txid,
    published_versions,
)
from servingrepo.repository.retention import Candidate, Decision, Keep, decide, need_policies
from servingrepo.repository.served import read_config, refuse_elsewhere
from servingrepo.repository.trash import (
    Trashed,
    find_trashed,
    refuse_strange_trash,
    trash_place,
    trashed_versions,
)
from servingrepo.repository.usage import alone, using
from servingrepo.storage.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from servingrepo.repository.protection import Foreseen, Loaded
    from servingrepo.storage.progress import Progress

_UNREADABLE = "its record cannot be read, so nothing is known of it"
_LATE_USE = "in use: somebody began to verify or smoke-test it"


class ModelPruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune decided on one model's versions, and what it did with those that go."""

    model: str
    policy: str
    decisions: tuple[Decision, ...]

    @property
    def gone(self) -> tuple[int, ...]:
        """The versions that went, or would go in a dry run."""
        return tuple(one.version for one in self.decisions if not one.keep)


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune did, or would do in a dry run.

    `moved` is the size of the versions that went to the trash: no space is free by that. `freed` is what
    deleting for good gave back, `trash_size` what is in the trash now; both in bytes on disk.
    """

    models: tuple[ModelPruned, ...] = ()
    emptied: tuple[Emptied, ...] = ()
    moved: int = 0
    freed: int = 0
    trash_size: int = 0
    dry_run: bool = False


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore brought back, or would: every byte was compared with the record."""

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
    message: str = "",
    dry_run: bool = False,
) -> tuple[ModelPruned, ...]:
    """Move what no rule keeps and nothing protects to the trash, each model by its policy.

    Everything is decided before anything moves. Foreign versions, which have no record, are not looked at.

    Raises:
        UsageError: A policy is empty.
        NoSuchVersion: There is no such model.
        ConfigInvalid: models.config cannot be read, or has a model elsewhere, so nobody knows what is served.
        StorageFailed: A trash cannot be used.
    """
    need_policies(policies)
    with writing(repo, dry_run=dry_run):
        refuse_elsewhere(repo, read_config(repo).config, *policies)
        plans = [
            _decided(repo, model, keep, loaded=loaded or {}) for model, keep in policies.items()
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
    """Say what a prune would decide if a promotion had happened; nothing is changed, nor looked for on servers.

    Raises:
        UsageError: The policy is empty.
        ConfigInvalid: models.config cannot be read.
    """
    need_policies({model: keep})
    return _decided(repo, model, keep, loaded={}, foreseen=foreseen)


def _decided(
    repo: Repository, model: str, keep: Keep, *, loaded: Loaded, foreseen: Foreseen | None = None
) -> ModelPruned:
    # Only what is foreseen may be the first of its model.
    state = need_state(repo, model) if foreseen is None else load_state(repo, model)
    bad = state.bad if state is not None else {}
    versions = published_versions(repo, model)
    protected = protections(repo, model, versions, loaded=loaded, foreseen=foreseen)
    labels = labels_ever(repo, model) if keep.labelled else {}
    candidates = []
    for version in versions:
        head, reasons = None, protected[version]
        try:
            head = load(repo.layout.record(model, version), RecordHead)
        except (RepositoryDamaged, NewerFormat):
            reasons = (*reasons, _UNREADABLE)
        candidates.append(
            Candidate(
                version=version,
                created=head.created if head is not None else "",
                size=head.size if head is not None else 0,
                bad=version in bad,
                labels=labels.get(version, ()),
                protected=reasons,
            )
        )
    if foreseen is not None and foreseen.version not in versions:
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


def _carry_out(repo: Repository, plan: ModelPruned, *, message: str) -> ModelPruned:
    """Move what goes; a version that somebody began to read meanwhile stays."""
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
    """Rename a version, durably; the target must not exist.

    A rename is one change to a file system: it is durable in both directories when it is in one.
    """
    with storage_errors("move", source):
        try:
            repo.disk.publish_directory(source, target, step=step)
        except FileExistsError as error:
            raise NumberUsed(
                f"{target} is there already; {source} was left where it is",
                hint="find out who writes there",
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
    """Bring a version back from the trash, after every byte was compared with its record. It is not served.

    Raises:
        NoSuchVersion: It is not in the trash.
        VersionDamaged: It is not what its record says; the message says what, and it stays in the trash.
        NumberUsed: Something has its place.
        ConfigInvalid: Its directory alone would make servers load it.
    """
    from servingrepo.repository.verification import compare_with_record

    state = need_state(repo, model)
    found, record = _need_trashed(repo, model, version)
    # The long part is done without the lock: nobody who has to roll back waits for it.
    with using(repo, model, version):
        differences = compare_with_record(Path(found.path), record, progress=progress)
        if differences:
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
