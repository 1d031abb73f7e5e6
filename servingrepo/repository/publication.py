"""Publish a version: reserve a number, make a staging copy, and rename it to its place, the first commit point (C1).

A directory with an integer name below a base path *is* a deployment, one second later. So all work is done on a
staging copy, and C1 is one rename of a complete, durable, proven directory. A number is burnt once something is
staged under it, published or not.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    NumberUsed,
    RepositoryDamaged,
    ServingRepoError,
    StorageFailed,
    VersionBad,
)
from servingrepo.modelconfig import MAX_VERSION, parse_version
from servingrepo.repository import journal
from servingrepo.repository.config import MODEL_FILES
from servingrepo.repository.journal import Intent
from servingrepo.repository.records import VersionRecord, encode
from servingrepo.repository.recovery import say_if_happened, settle
from servingrepo.repository.repository import (
    Repository,
    load_head,
    load_record,
    locked,
    me,
    new_txid,
    record_numbers,
)
from servingrepo.repository.snapshot import Snapshot, read_snapshot
from servingrepo.repository.transaction import writing
from servingrepo.repository.trash import trashed_versions
from servingrepo.repository.trust import refuse_links, refuse_twin
from servingrepo.storage.copying import copy_tree, need_space
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.hashing import content_digest
from servingrepo.storage.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.records import Source
    from servingrepo.savedmodel.inspection import Inspection
    from servingrepo.savedmodel.values import TensorCheck
    from servingrepo.storage.lock import Owner
    from servingrepo.storage.manifest import Manifest
    from servingrepo.storage.pipeline import Watch
    from servingrepo.storage.tree import SourceTree


def new_record(
    model: str,
    version: int,
    *,
    txid: str,
    by: Owner,
    time: str,
    message: str,
    source: Source,
    manifest: Manifest,
    inspection: Inspection,
    tensors: TensorCheck | None,
) -> VersionRecord:
    """Make the record of a version from what its files are, and from who publishes it when."""
    return VersionRecord(
        model=model,
        version=version,
        txid=txid,
        created=time,
        user=by.user,
        host=by.host,
        message=message,
        source=source,
        manifest=manifest,
        digest=content_digest(manifest),
        size=manifest.size,
        tensorflow=inspection.tensorflow_version,
        signatures=inspection.signatures,
        fingerprint=inspection.fingerprint,
        tensors=tensors,
        demands=inspection.demands,
    )


class Reservation(msgspec.Struct, frozen=True):
    """A reserved number, and where its staging copy goes."""

    txid: str
    model: str
    version: int
    base: Path

    @property
    def export(self) -> Path:
        """The version directory of the staging copy; its parent is a base path that a server can serve from."""
        return self.base / str(self.version)


def choose_number(repo: Repository, now: Snapshot, wanted: int | None) -> int:
    """Return the number of the next version: `wanted`, or one more than every number ever used.

    Used are all numbers that are or were on disk (in every spelling that TF Serving reads), in the trash, on record,
    in the config, or reserved by a command.

    Raises:
        NumberUsed: `wanted` is not above them.
        BadVersionNumber: `wanted` is not a positive int64.
    """
    if wanted is not None:
        parse_version(str(wanted))
    model = now.model
    used = highest_used(repo, now)
    number = used + 1 if wanted is None else wanted
    if number <= used:
        raise NumberUsed(
            f"version {number} of {model} cannot be used: numbers up to {used} are or were in use",
            hint=f"give --version {used + 1} or more, or leave --version out",
        )
    if number > MAX_VERSION:
        raise NumberUsed(
            f"{model} has used the highest number there is, {used}",
            hint="publish it as a model of another name",
        )
    return number


def highest_used(repo: Repository, now: Snapshot) -> int:
    """Return the highest number ever used by a model, 0 if none was."""
    reserved = (
        intent.version or 0
        for intent, _ in journal.read_all(repo.layout.journal)
        if intent.model == now.model
    )
    return max(
        0,
        now.state.highest if now.state is not None else 0,
        *now.published,
        *now.unmanaged,
        *record_numbers(repo, now.model),
        *(one.version for one in trashed_versions(repo.layout, now.model)),
        *now.pins,
        *now.labels.values(),
        *reserved,
    )


def refuse_flat_model(repo: Repository, model: str) -> None:
    """Refuse a model folder that is itself a SavedModel: TF Serving reads only directories with a number.

    Raises:
        RepositoryDamaged: There is a saved_model.pb directly in it.
    """
    base = repo.layout.model(model)
    found = sorted(name for name in MODEL_FILES if (base / name).exists())
    if found:
        raise RepositoryDamaged(
            f"{base} has {found[0]} directly in it, without a version number: TensorFlow Serving never "
            "finds it there",
            hint=f"move its files to a run directory outside of {repo.layout.models} and promote that",
        )


def find_same(repo: Repository, now: Snapshot, *, digest: str) -> VersionRecord | None:
    """Return the record of the highest good version with the same content; None if there is none.

    Raises:
        VersionBad: The content is marked bad.
    """
    model = now.model
    for number, mark in now.bad.items():
        if mark.digest == digest:
            raise VersionBad(
                f"this is the content of {model}@{number}, which {mark.user}@{mark.host} marked bad on "
                f"{mark.time}: {mark.reason or 'no reason given'}",
                hint=f"promote another export, or servingrepo mark-bad {model}@{number} --clear",
            )
    for number in reversed(now.published):
        head = load_head(repo, model, number)
        if head is not None and head.digest == digest:
            return load_record(repo, model, number)
    return None


def same_in_trash(repo: Repository, model: str, *, digest: str) -> int | None:
    """Return the highest version in the trash with this content; None if there is none."""
    numbers = {one.version for one in trashed_versions(repo.layout, model)}
    heads = (load_head(repo, model, number) for number in sorted(numbers))
    same = [head.version for head in heads if head is not None and head.digest == digest]
    return max(same, default=None)


def may_be_known(repo: Repository, now: Snapshot, tree: SourceTree) -> bool:
    """Tell by names and sizes whether a version or a bad mark may have the content of a tree.

    Only then is it worth hashing the source before the copy.
    """
    recorded = set(record_numbers(repo, now.model))
    # The mark of a deleted bad version has no file names, and an old mark has no size either.
    if any(
        mark.digest and number not in recorded and mark.size in {None, tree.size}
        for number, mark in now.bad.items()
    ):
        return True
    shape = {(file.path, file.size) for file in tree.files}
    numbers = sorted({*now.published, *recorded.intersection(now.bad)})
    records = (load_record(repo, now.model, number) for number in numbers)
    return any(
        {(file.path, file.size) for file in record.manifest.files} == shape
        for record in records
        if record is not None
    )


@contextmanager
def reserve(
    repo: Repository,
    *,
    model: str,
    version: int | None,
    engine: str = "",
    smoked_on: str = "",
    endpoints: tuple[str, ...] = (),
) -> Iterator[Reservation]:
    """Reserve a number for the block, which stages and publishes, and clean up after it.

    The number is burnt when the version is published or a staging copy is removed: before that no server can have
    seen it. `engine`, `smoked_on` and `endpoints` tell recovery where something may be left running; see `Intent`.

    Raises:
        NumberUsed: `version` was used before.
        Locked: Another process holds the lock.
    """
    with ExitStack() as stack:
        with writing(repo, publishing=True):
            refuse_flat_model(repo, model)
            refuse_links(repo, model)
            refuse_twin(repo, model)
            number = choose_number(repo, read_snapshot(repo, model), version)
            txid = new_txid(repo)
            intent = Intent(
                txid=txid,
                command="promote",
                owner=me(),
                model=model,
                version=number,
                engine=engine,
                smoked_on=smoked_on,
                endpoints=endpoints,
            )
            stack.enter_context(journal.declare(repo.disk, repo.layout.intent(txid), intent))
        try:
            yield Reservation(txid, model, number, repo.layout.staging(model, txid))
        except BaseException as error:
            # What cannot be recovered now is left to the next writer.
            with suppress(ServingRepoError), locked(repo):
                say_if_happened(repo, intent, error)
                settle(repo, intent, reach=True)
            raise
        # All is done. If the staging directory cannot be removed now, the next writer removes it.
        with suppress(StorageFailed):
            repo.disk.remove_tree(repo.layout.staging(model, txid))


def stage(
    repo: Repository,
    place: Reservation,
    tree: SourceTree,
    *,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Manifest:
    """Make the staging copy of a tree, durably, and return its manifest. `watch` sees the bytes.

    Raises:
        NoSpace: The tree does not fit; nothing was copied.
        SourceChanged: The source changed meanwhile.
        StorageFailed: Reading or writing failed.
    """
    disk = repo.disk
    need_space(tree, repo.layout.models)
    disk.make_directory(repo.layout.model(place.model))
    # Its name need not be durable: no command needs it before C1, and C1 gives it another.
    disk.make_scratch_directory(place.base)
    manifest = copy_tree(tree, place.export, disk=disk, progress=progress, watch=watch)
    disk.step("staged", place.export)
    return manifest


def publish(repo: Repository, place: Reservation, record: VersionRecord) -> None:
    """Write the record, then make the version appear: C1. The caller holds the lock.

    Raises:
        NumberUsed: Another writer put a file or directory where the version belongs.
    """
    folder = repo.layout.records(place.model)
    repo.disk.make_directory(folder)
    repo.disk.replace_file(
        repo.layout.record(place.model, place.version), encode(record), step="record"
    )
    target = repo.layout.version(place.model, place.version)
    with storage_errors("publish", target):
        try:
            repo.disk.publish_directory(place.export, target, step="c1")
        except FileExistsError as error:
            raise NumberUsed(
                f"{target} appeared while version {place.version} was being prepared; it was left alone",
                hint="find out which process writes there; promote again for the next number",
            ) from error
