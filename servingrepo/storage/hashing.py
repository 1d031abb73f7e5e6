"""Hash trees and files with blake3. Each file is read once, and other consumers can watch its bytes.

The digest of a manifest names its content: two digests are equal if and only if paths, bytes and directories are.
"""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from servingrepo.storage.disk import storage_errors, translate
from servingrepo.storage.manifest import FileEntry, Manifest, Recipe
from servingrepo.storage.mapping import hashed_by_child, worth_mapping
from servingrepo.storage.pipeline import END, beside
from servingrepo.storage.progress import Progress, silent
from servingrepo.texts import escaped

if TYPE_CHECKING:
    from servingrepo.storage.pipeline import Shown, Watch

CHUNK = 128 << 10
"""Bytes of one read, as in cp: they stay in a core's cache from the read to the hash and the write.

Larger chunks cost more processor time, and blake3's own threads wait for each other at every chunk: see
docs/benchmarks.md.
"""

LARGE = 32 << 20
"""From this size on, a file gets two threads: one reads and compares, the other hashes.

When a file is copied, the first one hashes too, and the other one writes.
"""

_THREADS, _BATCH = 2, 32

LARGE_CHUNK = 1 << 20
"""Every hand-over of a chunk to another thread costs time, so these chunks are larger; their memory is used again.

More threads for blake3 do not help here: the thread that reads and compares has as much work as the one that hashes.
Where nobody compares, `mapping` uses them.
"""


def content_digest(manifest: Manifest) -> str:
    """Return the digest that names the content of a manifest."""
    content = [[file.path, file.size, file.hash] for file in manifest.files]
    return "blake3:" + blake3(msgspec.json.encode([content, manifest.directories])).hexdigest()


def hash_tree(
    root: Path, *, progress: Progress | None = None, watch: Watch | None = None
) -> Manifest:
    """Hash a published tree where it lies.

    The hash of a link, device, socket or FIFO is a text that says its kind, so it differs from the hash of every
    file. In a name that is not UTF-8 the wrong bytes are escaped. `progress` is called with the bytes of each file
    that is done. `watch` gets the bytes of the files that it asks for.

    Raises:
        StorageFailed: A file or directory cannot be read.
    """
    sizes: dict[str, int] = {}
    directories: list[str] = []

    def walk(directory: str, prefix: str) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(prefix + entry.name)
                    walk(entry.path, prefix + entry.name + "/")
                else:
                    sizes[prefix + entry.name] = entry.stat(follow_symlinks=False).st_size

    with storage_errors("read", root):
        walk(str(root), "")
    sources = {path: f"{root}/{path}" for path in sizes}
    files = hash_all(sizes, sources, progress=progress or silent, watch=watch)
    return Manifest(
        recipe=Recipe(), files=files, directories=tuple(sorted(map(escaped, directories)))
    )


def hash_all(
    sizes: dict[str, int], sources: dict[str, str], *, progress: Progress, watch: Watch | None
) -> tuple[FileEntry, ...]:
    """Hash files, and return their entries sorted by path. Large files are hashed first, one after the other.

    `sizes` and `sources` have the size and the place of each file, by path. If nobody watches the bytes and they are
    many, a child process hashes the large files on all cores, while this one hashes the small ones.

    Raises:
        StorageFailed: A file cannot be read.
    """

    def one(path: str, known: tuple[int, str] | None = None) -> FileEntry:
        if known is not None:
            entry = FileEntry(escaped(path), *known)
        else:
            try:
                entry = hash_file(sources[path], escaped(path), watch=watch)
            except OSError as error:
                raise translate(error, "read", Path(sources[path])) from error
        progress(entry.size)
        return entry

    mapped = worth_mapping(sizes) if watch is None else ()
    rest = sizes.keys() - mapped
    with hashed_by_child([sources[path] for path in mapped]) as answers:
        found = [one(path) for path in rest if sizes[path] >= LARGE]
        small = [path for path in rest if sizes[path] < LARGE]
        # A hand-over to a thread costs more than the hash of a small file, so a thread gets many files at once.
        batches = [small[first : first + _BATCH] for first in range(0, len(small), _BATCH)]
        if len(batches) <= 1:
            found += map(one, small)
            batches = []
        with ThreadPoolExecutor(_THREADS) as pool:
            for entries in pool.map(lambda batch: [one(path) for path in batch], batches):
                found += entries
        found += [one(path, answer) for path, answer in zip(mapped, answers, strict=True)]
    return tuple(sorted(found, key=lambda entry: entry.path))


def hash_file(file: str | Path, path: str, *, watch: Watch | None = None) -> FileEntry:
    """Hash one file. A link is not followed, and a FIFO is not waited for."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # These flags cannot open a link or a socket. A regular file that cannot be opened is an error.
        facts = Path(file).lstat()
        if stat.S_ISREG(facts.st_mode):
            raise
        return _no_file(file, path, facts)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return _no_file(file, path, facts)
        shown = watch(path) if watch is not None else None
        read = _large if facts.st_size >= LARGE else _small
        size, digest = read(descriptor, facts.st_size, shown)
        if shown is not None:
            shown(END)
    finally:
        os.close(descriptor)
    return FileEntry(path=path, size=size, hash=digest)


def _large(descriptor: int, _: int, shown: Shown | None) -> tuple[int, str]:
    """Read in this thread, and hash in another one."""
    hasher = blake3()
    size = 0
    with beside(hasher.update, chunk=LARGE_CHUNK) as chunks:
        while count := os.readv(descriptor, [room := chunks.room()]):
            data = room[:count]
            chunks.give(data)
            size += count
            if shown is not None:
                shown(data)
    return size, hasher.hexdigest()


def _small(descriptor: int, expected: int, shown: Shown | None) -> tuple[int, str]:
    hasher = blake3()
    size = 0
    # Allocate only what the file needs: for many small files allocation would be most of the cost.
    chunk = min(CHUNK, expected + 1)
    while data := os.read(descriptor, chunk):
        hasher.update(data)
        size += len(data)
        if shown is not None:
            shown(memoryview(data))
    return size, hasher.hexdigest()


def _no_file(file: str | Path, path: str, facts: os.stat_result) -> FileEntry:
    link = stat.S_ISLNK(facts.st_mode)
    what = f"link to {Path(file).readlink()}" if link else "no regular file"
    return FileEntry(path=path, size=facts.st_size, hash=escaped(what))
