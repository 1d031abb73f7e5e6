"""The manifest of a version: every file with its size and hash, and the recipe of the hashes.

A manifest is a value. It is written once, beside the version and never in it. `compare` returns how a tree differs
from it, in three lists.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from servingrepo.storage.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Recipe(msgspec.Struct, frozen=True):
    """The way the hashes were made, so that a later release can make them again."""

    hash: str = "blake3"
    covers: str = (
        "every file below the version directory, its path, size and bytes; directory names"
    )


class FileEntry(msgspec.Struct, frozen=True):
    """One file: path with `/`, relative to the version directory; size in bytes; hash in hex."""

    path: str
    size: int
    hash: str


class Manifest(msgspec.Struct, frozen=True):
    """All files of a version, sorted by path."""

    recipe: Recipe
    files: tuple[FileEntry, ...]
    directories: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in self.files)


class Differences(msgspec.Struct, frozen=True):
    """The differences of a tree from its manifest: paths in three lists."""

    extra: tuple[str, ...]
    missing: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.extra or self.missing or self.changed)

    def touch(self, folder: str) -> bool:
        """Tell whether a difference is below a folder, whose name ends with `/`."""
        paths = (*self.extra, *self.missing, *self.changed)
        return any(path.startswith(folder) for path in paths)

    def lines(self) -> list[str]:
        """Return each difference as a line."""
        return [
            *(f"missing: {path}" for path in self.missing),
            *(f"changed: {path}" for path in self.changed),
            *(f"extra: {path}" for path in self.extra),
        ]


def compare(expected: Manifest, actual: Manifest) -> Differences:
    """Compare a tree's manifest with the one on record."""
    wanted = {file.path: file for file in expected.files} | dict.fromkeys(expected.directories)
    found = {file.path: file for file in actual.files} | dict.fromkeys(actual.directories)
    return _differences(wanted, found)


def compare_sizes(expected: Manifest, root: Path) -> Differences:
    """Compare the names and sizes in a directory with a manifest. No file is read.

    Raises:
        StorageFailed: The directory cannot be read.
    """
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
    wanted: dict[str, int | None] = {file.path: file.size for file in expected.files}
    return _differences(wanted | dict.fromkeys(expected.directories), found)


def _differences(wanted: Mapping[str, object], found: Mapping[str, object]) -> Differences:
    return Differences(
        extra=tuple(sorted(found.keys() - wanted.keys())),
        missing=tuple(sorted(wanted.keys() - found.keys())),
        changed=tuple(
            sorted(path for path in wanted.keys() & found.keys() if wanted[path] != found[path])
        ),
    )
