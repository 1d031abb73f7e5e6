"""Is what is on disk what was published? Three lists, the fingerprint, and the words "not checked"."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from servingrepo.repository.repository import Repository, find_version
from servingrepo.repository.usage import using
from servingrepo.savedmodel import Inspection, inspect_export
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.hashing import content_digest, hash_tree
from servingrepo.storage.manifest import Differences, Manifest, compare
from servingrepo.storage.tree import read_tree

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.repository.records import VersionRecord
    from servingrepo.storage.progress import Progress

NO_DIFFERENCES = Differences(extra=(), missing=(), changed=())


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    `against` is the record that every byte was compared with, or None for a path without one: then only what
    the SavedModel says of itself was checked.
    """

    subject: str
    path: str
    model: str | None
    version: int | None
    against: str | None
    files: int
    size: int
    digest: str
    differences: Differences
    inspection: Inspection
    in_trash: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing wrong was found in what was checked."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything wrong, a line each."""
        return (
            *self.differences.lines(),
            *(f"{defect.slug}: {defect.message}" for defect in self.inspection.defects),
        )


def verify_version(
    repo: Repository, model: str, version: int, *, progress: Progress | None = None
) -> Verification:
    """Compare every byte of a version with its record; one in the trash is compared where it lies.

    Raises:
        NoSuchVersion: There is no such version of ours.
        StorageFailed: It cannot be read.
    """
    with using(repo, model, version):
        record, path = find_version(repo, model, version)
        actual = hash_tree(path, progress=progress)
        found = _verification(f"{model}@{version}", path, actual, record)
    return msgspec.structs.replace(found, in_trash=path != repo.layout.version(model, version))


def compare_with_record(
    path: Path, record: VersionRecord, *, progress: Progress | None = None
) -> Differences:
    """Compare every byte of a tree with a record, wherever it lies.

    Raises:
        StorageFailed: It cannot be read.
    """
    return compare(record.manifest, hash_tree(path, progress=progress))


def verify_path(path: Path, *, progress: Progress | None = None) -> Verification:
    """Check an export that has no record, by what it says of itself.

    Raises:
        UnsafeExport: It has links that leave it or files that are none.
        StorageFailed: It cannot be read.
    """
    read_tree(path, boundary=path)
    return _verification(str(path), path, hash_tree(path, progress=progress), None)


def quick_differences(repo: Repository, record: VersionRecord) -> Differences:
    """Compare names and sizes only: what a rollback has time for. Bytes are not checked."""
    root = repo.layout.version(record.model, record.version)
    found: dict[str, int | None] = {}

    def walk(directory: str, prefix: str) -> None:
        with os.scandir(directory) as entries:
            for one in entries:
                path = (prefix + one.name).encode("utf-8", "backslashreplace").decode()
                if one.is_dir(follow_symlinks=False):
                    found[path] = None
                    walk(one.path, prefix + one.name + "/")
                elif one.is_file(follow_symlinks=False):
                    found[path] = one.stat(follow_symlinks=False).st_size
                else:
                    found[path] = -1  # a link or a device: never what was published

    with storage_errors("read", root):
        walk(str(root), "")
    wanted: dict[str, int | None] = {file.path: file.size for file in record.manifest.files}
    wanted |= dict.fromkeys(record.manifest.directories)
    return Differences(
        extra=tuple(sorted(found.keys() - wanted.keys())),
        missing=tuple(sorted(wanted.keys() - found.keys())),
        changed=tuple(
            sorted(path for path in wanted.keys() & found.keys() if wanted[path] != found[path])
        ),
    )


def _verification(
    subject: str, path: Path, actual: Manifest, record: VersionRecord | None
) -> Verification:
    return Verification(
        subject=subject,
        path=str(path),
        model=record.model if record is not None else None,
        version=record.version if record is not None else None,
        against=f"the record of {record.created}" if record is not None else None,
        files=len(actual.files),
        size=actual.size,
        digest=content_digest(actual),
        differences=compare(record.manifest, actual) if record is not None else NO_DIFFERENCES,
        inspection=inspect_export(path),
    )
