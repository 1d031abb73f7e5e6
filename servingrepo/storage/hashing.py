"""Hashing trees and files: blake3, one thread to a file, which is faster than most disks read.

The digest of a manifest names its content: equal if and only if paths, bytes and directories are equal.
"""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from servingrepo.storage.disk import storage_errors
from servingrepo.storage.manifest import FileEntry, Manifest, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK = 128 << 10
"""Bytes read at a time, as cp does: they stay in a core's cache from reading to hashing and writing.

Larger ones cost more processor time, and blake3's own threads wait for each other at every chunk: measured
in docs/benchmarks.md.
"""


def content_digest(manifest: Manifest) -> str:
    """Name the content of a manifest."""
    content = [[file.path, file.size, file.hash] for file in manifest.files]
    return "blake3:" + blake3(msgspec.json.encode([content, manifest.directories])).hexdigest()


def hash_tree(
    root: Path, *, progress: Callable[[int], None] | None = None, threads: int = 2
) -> Manifest:
    """Hash a published tree as it lies there.

    Links and other things that are no files get a hash that says so, and hence differ from any file. A name
    that is not UTF-8 is listed with those bytes escaped.
    `progress` is told the bytes of each file done.

    Raises:
        StorageFailed: Something cannot be read.
    """
    paths: list[str] = []
    directories: list[str] = []

    def walk(directory: str, prefix: str) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(prefix + entry.name)
                    walk(entry.path, prefix + entry.name + "/")
                else:
                    paths.append(prefix + entry.name)

    def one(path: str) -> FileEntry:
        with storage_errors("read", root / path):
            entry = hash_file(root / path, _text(path))
        if progress is not None:
            progress(entry.size)
        return entry

    with storage_errors("read", root):
        walk(str(root), "")
    paths.sort()
    with ThreadPoolExecutor(threads) as pool:
        files = tuple(pool.map(one, paths))
    return Manifest(
        recipe=Recipe(), files=files, directories=tuple(sorted(map(_text, directories)))
    )


def _text(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def hash_file(file: Path, path: str) -> FileEntry:
    """Hash one file without following a link."""
    facts = file.lstat()
    if not stat.S_ISREG(facts.st_mode):
        what = f"link to {file.readlink()}" if stat.S_ISLNK(facts.st_mode) else "no regular file"
        what = _text(what)
        return FileEntry(path=path, size=facts.st_size, hash=what)
    hasher = blake3()
    buffer = bytearray(min(CHUNK, facts.st_size + 1))
    view = memoryview(buffer)
    size = 0
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            hasher.update(view[:count])
            size += count
    return FileEntry(path=path, size=size, hash=hasher.hexdigest())
