"""A source tree as it will be published: every file by its relative path, links resolved.

TF Serving must find real files: a link out of the run would break on another machine, or lead to other bytes
tomorrow. So a link inside the run counts as its target. Everything else that is neither a regular file nor a
directory is refused, and one error lists it all.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import SourceChanged, UnsafeExport
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.reading import KINDS
from servingrepo.texts import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 64
_REPLACED = "replace them by real files inside the run directory, or remove them"
_COPIED = "copy the run with what it links to (cp -rL RUN COPY), or give the directory that holds both as the run"


class SourceFile(msgspec.Struct, frozen=True):
    """One file to copy: its path in the tree, its source, and the facts that identify its present state."""

    path: str
    source: str
    size: int
    mtime_ns: int
    device: int
    inode: int


class SourceTree(msgspec.Struct, frozen=True):
    """All files and directories below `root`, sorted by path. `links` are those among them that are links."""

    root: Path
    boundary: Path
    files: tuple[SourceFile, ...]
    directories: tuple[str, ...]
    links: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in self.files)


def read_tree(root: Path, *, boundary: Path) -> SourceTree:
    """List a tree; links may point anywhere inside `boundary`, the run directory.

    Raises:
        UnsafeExport: Links that leave the boundary or lead nowhere, FIFOs, sockets, devices, names that are
            not UTF-8; all of them are listed.
        NoPermission: A directory cannot be read.
        SourceChanged: A directory was swapped for a link, or moved, while it was read.
    """
    with storage_errors("read", root):
        place = root.resolve()
        reader = _Reader(boundary.resolve() if boundary != root else place)
        if place.is_relative_to(reader.boundary):
            reader.read(place, "", ())
        else:
            reader.leave(str(root), place)
    if reader.problems:
        raise UnsafeExport(
            f"{root} has files or links that must not be published",
            problems=reader.problems,
            hint=_COPIED if reader.leaves else _REPLACED,
        )
    return SourceTree(
        root=root,
        boundary=boundary,
        files=tuple(sorted(reader.files, key=lambda file: file.path)),
        directories=tuple(sorted(reader.directories)),
        links=tuple(sorted(reader.links)),
    )


def size_below(root: Path) -> int:
    """Return the bytes of the files below a directory, for a progress bar: what cannot be read counts nothing."""
    total = 0
    for place, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                total += os.lstat(f"{place}/{name}").st_size
    return total


class _Reader:
    """Collects the files, directories and problems of one walk."""

    def __init__(self, boundary: Path) -> None:
        self.boundary = boundary
        self.files: list[SourceFile] = []
        self.directories: list[str] = []
        self.problems: list[str] = []
        self.links: list[str] = []
        self.leaves = False
        # Links to directories on the way to the present one. Links inside links could multiply without end.
        self.linked = 0

    def read(self, directory: Path, prefix: str, above: tuple[Path, ...]) -> None:
        with (
            _opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor,
            os.scandir(descriptor) as entries,
        ):
            for entry in sorted(entries, key=lambda one: one.name):
                self.take(directory, entry, prefix + entry.name, (*above, directory))

    def leave(self, path: str, target: str | Path) -> None:
        """Refuse a link for where it leads."""
        self.problems.append(f"{path}: a link out of the run, to {target}")
        self.leaves = True

    def take(
        self, directory: Path, entry: os.DirEntry[str], path: str, above: tuple[Path, ...]
    ) -> None:
        if escaped(path) != path:
            self.problems.append(f"{escaped(path)}: the name is not UTF-8")
            return
        source = f"{directory}/{entry.name}"
        if entry.is_symlink():
            source = os.path.realpath(source)
            if not Path(source).is_relative_to(self.boundary):
                self.leave(path, source)
                return
            if not Path(source).exists():
                self.problems.append(f"{path}: a link to {source}, which is not there")
                return
            self.links.append(path)
            with _opened(Path(source), os.O_PATH) as descriptor:
                facts = os.fstat(descriptor)
        else:
            facts = entry.stat(follow_symlinks=False)
        kind = stat.S_IFMT(facts.st_mode)
        if kind == stat.S_IFREG:
            self.files.append(
                SourceFile(
                    path=path,
                    source=source,
                    size=facts.st_size,
                    mtime_ns=facts.st_mtime_ns,
                    device=facts.st_dev,
                    inode=facts.st_ino,
                )
            )
        elif kind == stat.S_IFDIR:
            if len(above) > _DEEPEST:
                self.problems.append(f"{path}: more than {_DEEPEST} directories deep")
                return
            if entry.is_symlink() and self.linked:
                self.problems.append(f"{path}: a link to a directory below another such link")
                return
            below = Path(source)
            if below in above:
                self.problems.append(f"{path}: a link to a directory above it, {source}")
                return
            self.directories.append(path)
            self.linked += entry.is_symlink()
            self.read(below, path + "/", above)
            self.linked -= entry.is_symlink()
        else:
            self.problems.append(f"{path}: {KINDS.get(kind, 'no regular file')}")


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open a path, and make sure that no link was put into it since the walk.

    Other users who may write in the run could swap a directory for a link while we read. Then we would publish a file
    that only we may read. The kernel says where an open file really is (proc(5), /proc/self/fd).

    Raises:
        SourceChanged: The file is elsewhere now.
    """
    descriptor = -1
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        if _place(descriptor, path) == str(path):
            yield descriptor
            return
    except OSError as error:
        if descriptor >= 0 or error.errno not in {errno.ELOOP, errno.ENOTDIR}:
            raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    raise SourceChanged(
        f"{path} was moved, or a link put in its place, while it was read",
        hint="find out what changes the run's directories; promote again when it has finished",
    )


def _place(descriptor: int, path: Path) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except FileNotFoundError:  # no /proc here
        return os.path.realpath(path)
