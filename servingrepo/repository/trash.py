"""The trash of a model: pruned versions, which can be restored, and those that are being deleted.

One rename moves a version to `models/<name>/.trash/<N>-<txid>`, and one brings it back. Its record stays where it
was. A deletion begins with a rename to `.deleting-<N>-<txid>`. From then on the version is gone: even if the deletion
is interrupted, a half deleted version never counts as restorable. Other names in the trash are not ours. TF Serving
takes neither name for a version.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import StorageFailed
from servingrepo.repository.layout import TXID, Layout, is_state_name
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.reading import names_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from servingrepo.repository.history import Event
    from servingrepo.storage.disk import Disk

_TRASHED = re.compile(rf"([1-9][0-9]{{0,18}})-({TXID})")
_DELETING = re.compile(rf"\.deleting-([1-9][0-9]{{0,18}})-({TXID})")


class Trashed(msgspec.Struct, frozen=True, kw_only=True):
    """One version in the trash; `txid` is the prune that put it there."""

    model: str
    version: int
    txid: str
    path: str

    @property
    def since(self) -> datetime | None:
        """The time at which it went to the trash, from its name; None if the name has no valid time."""
        try:
            return datetime.strptime(self.txid[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            return None


def trashed_versions(layout: Layout, model: str) -> tuple[Trashed, ...]:
    """Return the versions of a model that can be restored, by number."""
    return contents(layout, model)[0]


def being_deleted(layout: Layout, model: str) -> tuple[Trashed, ...]:
    """Return the versions that are being deleted for good, those of dead commands included."""
    return contents(layout, model)[1]


def contents(layout: Layout, model: str) -> tuple[tuple[Trashed, ...], tuple[Trashed, ...]]:
    """Return `trashed_versions` and `being_deleted` of a model, from one listing."""
    trash = layout.trash(model)
    with storage_errors("read", trash):
        try:
            names = [] if trash.is_symlink() else names_in(trash)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        return _named(model, trash, names, _TRASHED), _named(model, trash, names, _DELETING)


def find_trashed(layout: Layout, model: str, version: int) -> Trashed | None:
    """Return a version in the trash; None if it is not there."""
    found = [one for one in trashed_versions(layout, model) if one.version == version]
    return found[-1] if found else None


def trash_place(layout: Layout, model: str, version: int, txid: str) -> Path:
    """Say where a prune puts a version."""
    return layout.trash(model) / f"{version}-{txid}"


def deleting_place(layout: Layout, model: str, version: int, txid: str) -> Path:
    """Say where a version is put at the begin of its deletion: from then on it is gone for good."""
    return layout.trash(model) / f".deleting-{version}-{txid}"


def what_happened(layout: Layout, event: Event) -> Event:
    """Return the event of a prune, a restore or an emptying, with only the versions that it really moved.

    Each version moves by a rename of its own, so an interrupted command may have moved only some.
    """
    trash = trashed_versions(layout, event.model)
    in_trash = {one.version for one in trash}
    match event.action:
        case "prune":
            moved = {one.version for one in trash if one.txid == event.id}
        case "restore":
            moved = {
                one
                for one in event.versions
                if one not in in_trash and layout.version(event.model, one).is_dir()
            }
        case _:
            moved = {
                one
                for one in event.versions
                if one not in in_trash and not layout.version(event.model, one).exists()
            }
    versions = tuple(one for one in event.versions if one in moved)
    return msgspec.structs.replace(event, versions=versions)


def refuse_strange_trash(layout: Layout, model: str) -> None:
    """Refuse a trash that is a link or no directory: a link would lead versions elsewhere.

    Raises:
        StorageFailed: The trash is a link, or no directory.
    """
    trash = layout.trash(model)
    if trash.is_symlink() or (trash.exists() and not trash.is_dir()):
        what = "a link" if trash.is_symlink() else "no directory"
        raise StorageFailed(
            f"{trash} is {what}: servingrepo keeps a model's trash in a directory beside its versions",
            hint="remove or rename it; the trash must be on the file system of the versions",
        )


def tree_bytes(path: Path) -> int:
    """Return the bytes that a tree takes on disk; parts that cannot be read count as 0."""
    total = 0
    stack = [str(path)]
    while stack:
        with suppress(OSError), os.scandir(stack.pop()) as entries:
            for one in entries:
                if one.is_dir(follow_symlinks=False):
                    stack.append(one.path)
                with suppress(OSError):
                    total += one.stat(follow_symlinks=False).st_blocks * 512  # stat(2)'s unit
    return total


def drop_records(layout: Layout, disk: Disk, model: str, versions: Iterable[int]) -> None:
    """Remove the records of versions that are gone for good. A version on disk or in the trash keeps its record."""
    restorable = {one.version for one in trashed_versions(layout, model)}
    for version in versions:
        if version not in restorable and not layout.version(model, version).exists():
            disk.remove_file(layout.record(model, version))


def delete_condemned(disk: Disk, path: Path) -> None:
    """Remove the files of a version that is gone for good, piece by piece. It is safe to repeat this."""
    with storage_errors("remove", path):
        try:
            children = sorted(path.iterdir())
        except FileNotFoundError:
            return
    for child in children:
        disk.remove_tree(child)
    disk.remove_tree(path)


def sweep_trash(
    layout: Layout, disk: Disk, alive: Collection[str]
) -> Iterator[tuple[Trashed, str]]:
    """Finish the deletions of dead commands; the caller holds the lock. Yield each version and the outcome.

    Files that cannot be removed do not stop the caller: the outcome says so, and the next writer tries again.
    """
    with storage_errors("read", layout.states):
        names = names_in(layout.states)
    models = sorted(one.removesuffix(".json") for one in names if is_state_name(one))
    for model in models:
        for one in being_deleted(layout, model):
            if one.txid in alive:
                continue
            try:
                drop_records(layout, disk, model, [one.version])
                delete_condemned(disk, Path(one.path))
            except StorageFailed as error:
                yield one, f"it is gone, but its files could not be removed: {error.message}"
            else:
                yield one, "its deletion was finished"


def _named(
    model: str, trash: Path, names: Iterable[str], pattern: re.Pattern[str]
) -> tuple[Trashed, ...]:
    found: list[Trashed] = []
    for child in names:
        name = pattern.fullmatch(child)
        if name is None:
            continue
        path = trash / child
        if path.is_dir() and not path.is_symlink():
            found.append(Trashed(model=model, version=int(name[1]), txid=name[2], path=str(path)))
    return tuple(sorted(found, key=lambda one: (one.version, one.txid)))
