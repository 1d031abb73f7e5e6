"""Publishing a version: a number reserved, a copy staged, and the first commit point (C1).

Writing a directory named by an integer below a base path *is* a deployment, one second later. So everything
is done on a staged copy, and C1 is one rename of a complete, durable, proven directory. A number is burnt once
something is staged under it, published or not.
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
from servingrepo.modelconfig import MAX_VERSION, entry, parse_version
from servingrepo.repository import journal
from servingrepo.repository.changes import say_if_happened, settle, writing
from servingrepo.repository.journal import Intent
from servingrepo.repository.records import RecordHead, VersionRecord, encode, load
from servingrepo.repository.repository import (
    Repository,
    load_record,
    load_state,
    locked,
    me,
    names_on_disk,
    new_txid,
    published_versions,
    record_numbers,
)
from servingrepo.repository.served import MODEL_FILES, read_config
from servingrepo.repository.trash import trashed_versions
from servingrepo.repository.trust import refuse_links, refuse_twin
from servingrepo.storage.copying import copy_tree, need_space
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.storage.manifest import Manifest
    from servingrepo.storage.pipeline import Watch
    from servingrepo.storage.tree import SourceTree


class Reservation(msgspec.Struct, frozen=True):
    """A number that is ours, and where to stage."""

    txid: str
    model: str
    version: int
    base: Path

    @property
    def export(self) -> Path:
        """The staged version directory; its parent is a base path that a server can serve from."""
        return self.base / str(self.version)


def choose_number(repo: Repository, model: str, wanted: int | None) -> int:
    """Return the number that the next version gets: one above every number ever used.

    Used are numbers on disk (in every spelling TF Serving reads), in the trash, on record, in the config,
    reserved by running commands, and all that ever were.

    Raises:
        NumberUsed: `wanted` is not above them.
        BadVersionNumber: `wanted` is not a positive int64.
    """
    if wanted is not None:
        parse_version(str(wanted))
    used = highest_used(repo, model)
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


def highest_used(repo: Repository, model: str) -> int:
    """Return the highest number ever used by a model, 0 if none was."""
    state = load_state(repo, model)
    found = entry(read_config(repo).config, model)
    reserved = (
        intent.version or 0
        for intent, _ in journal.read_all(repo.layout.journal)
        if intent.model == model
    )
    return max(
        0,
        state.highest if state is not None else 0,
        *(names_on_disk(repo, model) or ()),
        *record_numbers(repo, model),
        *(one.version for one in trashed_versions(repo.layout, model)),
        *(found.versions if found is not None else ()),
        *(found.labels.values() if found is not None else ()),
        *reserved,
    )


def refuse_flat_model(repo: Repository, model: str) -> None:
    """Refuse a model folder that is itself a SavedModel: TF Serving looks only below numbers.

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


def find_same(repo: Repository, model: str, *, digest: str) -> VersionRecord | None:
    """Return the good version with the same content, the highest one; None if there is none.

    Raises:
        VersionBad: That content is marked bad.
    """
    state = load_state(repo, model)
    for number, mark in state.bad.items() if state is not None else ():
        if mark.digest == digest:
            raise VersionBad(
                f"this is the content of {model}@{number}, which {mark.user}@{mark.host} marked bad on "
                f"{mark.time}: {mark.reason or 'no reason given'}",
                hint=f"promote another export, or servingrepo mark-bad {model}@{number} --clear",
            )
    same = [record for record in published_records(repo, model) if record.digest == digest]
    return max(same, key=lambda record: record.version, default=None)


def same_in_trash(repo: Repository, model: str, *, digest: str) -> int | None:
    """Return the version in the trash that has this content, the highest one; None if there is none."""
    numbers = {one.version for one in trashed_versions(repo.layout, model)}
    heads = (load(repo.layout.record(model, number), RecordHead) for number in sorted(numbers))
    same = [head.version for head in heads if head is not None and head.digest == digest]
    return max(same, default=None)


def published_records(repo: Repository, model: str) -> Iterator[VersionRecord]:
    """Yield the records of all our versions on disk, ascending."""
    for number in published_versions(repo, model):
        record = load_record(repo, model, number)
        if record is not None:
            yield record


def may_be_known(repo: Repository, model: str, tree: SourceTree) -> bool:
    """Tell whether a version, or one that is marked bad, may have the content of a tree, by names and sizes.

    Only then is it worth hashing the source before copying it.
    """
    state = load_state(repo, model)
    bad = state.bad if state is not None else {}
    recorded = set(record_numbers(repo, model))
    # A bad version that was deleted leaves its mark, which has no names, and of old ones no size either.
    if any(
        mark.digest and number not in recorded and mark.size in {None, tree.size}
        for number, mark in bad.items()
    ):
        return True
    shape = {(file.path, file.size) for file in tree.files}
    numbers = sorted({*published_versions(repo, model), *recorded.intersection(bad)})
    records = (load_record(repo, model, number) for number in numbers)
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
    """Reserve a number for the block, which stages and publishes; whatever it leaves is cleaned up.

    The number is burnt by whoever publishes, or when something that was staged is removed: before that nobody can
    have seen it. `engine`, `smoked_on` and `endpoints` say what will run for it and where, so that whoever recovers
    knows where to look (journal.Intent).

    Raises:
        NumberUsed: `version` was used before.
        Locked: Another process holds the lock.
    """
    with ExitStack() as stack:
        with writing(repo, publishing=True):
            refuse_flat_model(repo, model)
            refuse_links(repo, model)
            refuse_twin(repo, model)
            number = choose_number(repo, model, version)
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
            # What cannot be settled now is left to the next writer.
            with suppress(ServingRepoError), locked(repo):
                say_if_happened(repo, intent, error)
                settle(repo, intent, reach=True)
            raise
        # All is done: a staging directory that cannot be removed now is swept by the next writer.
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
    """Copy a tree to the reservation's staging place, hashing it, durably; `watch` sees the bytes.

    Raises:
        NoSpace: It does not fit; nothing was copied.
        SourceChanged: The source changed meanwhile.
        StorageFailed: Reading or writing failed.
    """
    disk = repo.disk
    need_space(tree, repo.layout.models)
    disk.make_directory(repo.layout.model(place.model))
    # Its name need not be durable: until C1 nobody looks for it, and C1 gives it another.
    disk.make_scratch_directory(place.base)
    manifest = copy_tree(tree, place.export, disk=disk, progress=progress, watch=watch)
    disk.step("staged", place.export)
    return manifest


def publish(repo: Repository, place: Reservation, record: VersionRecord) -> None:
    """Write the record, then make the version appear: C1. The caller holds the lock.

    Raises:
        NumberUsed: Somebody else put something where the version belongs.
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
                hint="find out who writes there; promote again for the next number",
            ) from error
