"""Unpack the entries of an archive into a new directory, never outside of it, and within limits.

Python's own filters for tar resolve the names in an archive, and attackers have bypassed them again and again. We
resolve no name: each directory is opened in the one above it, without following links. Links are made last, so there
are none to follow. A link is allowed if its text alone shows that it stays in the archive and goes through no other
link.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import NoSpace, UnsafeExport
from servingrepo.runs.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["CHUNK", "Budget", "Entry", "Limits", "unpack"]

CHUNK = 1 << 20
"""Bytes that are read and written at once."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LONGEST = 1024
"""The most bytes of a path. Even below its directory and behind a link it stays far below the kernel's 4096."""
_LONGEST_NAME = 255
_DEEPEST = 64
_MOST_PROBLEMS = 20
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""The first bytes of macOS's files `._NAME`, which keep attributes of NAME that other file systems cannot store."""

_TWICE = "a file and also a directory"
_NOT_BEFORE = "a hard link to an entry that does not come before it"

_Parts = tuple[bytes, ...]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds for what an archive unpacks to."""

    files: int = 100_000
    size: int = 256 << 30
    """The most bytes in all."""
    ratio: int = 200
    """The most times of its own size, if it is beyond `suspicious` bytes: weights cannot be packed so tightly."""
    suspicious: int = 1 << 30
    kept_free: int = 64 << 20
    """Bytes of the scratch directory's disk that stay free."""


class Budget:
    """Counts the entries and bytes of an archive, and refuses more than the limits."""

    def __init__(self, limits: Limits, *, archive: str, packed: int, free: int) -> None:
        self.archive = archive
        self._limits = limits
        self._packed = packed
        self._room = free - limits.kept_free
        self._files = self._size = 0

    def count(self) -> None:
        """Count an entry, or a directory without an entry of its own.

        Raises:
            UnsafeExport: There are too many.
        """
        self._files += 1
        if self._files > self._limits.files:
            raise UnsafeExport(f"{self.archive} has more than {self._limits.files:,} entries")

    def take(self, size: int) -> None:
        """Count bytes that came out of the archive.

        Raises:
            UnsafeExport, NoSpace: There are too many.
        """
        self._size += size
        self.expect(0)

    def expect(self, size: int) -> None:
        """Refuse a number of announced bytes that would be too many, before any bytes are written in vain.

        Raises:
            UnsafeExport, NoSpace: They would be too many.
        """
        total = self._size + size
        if total > self._limits.size:
            raise UnsafeExport(f"{self.archive} unpacks to more than {self._limits.size:,} bytes")
        if total > max(self._limits.suspicious, self._limits.ratio * self._packed):
            raise UnsafeExport(
                f"{self.archive} unpacks to more than {self._limits.ratio} times its {self._packed:,} bytes: a bomb",
                hint="if it is no bomb, unpack it and give the directory",
            )
        if total > self._room:
            raise NoSpace(
                f"{self.archive} does not fit into {tempfile.gettempdir()}",
                hint="make room there, or let TMPDIR name a larger place",
            )


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of an archive."""

    name: bytes
    """The name in the archive, with slashes between its parts."""
    kind: Literal["file", "directory", "link", "hard link", "refused"]
    target: bytes = b""
    """The target of a link; the entry's name for a hard link; the reason for a refused entry."""
    read: Callable[[int], bytes] = lambda _: b""
    """Returns at most the given number of next bytes, nothing at the end. It works until the next entry is taken."""


class _Refused(Exception):
    """An entry must not be unpacked; the message says why."""


def unpack(entries: Iterable[Entry], into: Path, budget: Budget) -> list[str]:
    """Unpack entries into an empty directory. After the first refused entry, the others are only checked.

    Of two files with the same name the later one stays: tar appends a changed file in this way. Files that macOS adds
    to archives are skipped. The archive's owners, modes and times are ignored.

    Args:
        entries: The entries of the archive.
        into: The empty directory.
        budget: Counts the entries. Their bytes are counted where they are read.

    Returns:
        The refused entries with the reasons, at most twenty.
    """
    problems: list[str] = []
    with _Tree(into, budget) as tree:
        for entry in entries:
            budget.count()
            try:
                parts = _parts(entry.name)
                if parts[:1] == (b"__MACOSX",) or parts[-1:] == (b".DS_Store",):
                    continue
                tree.check(parts, entry)
                if not problems:
                    tree.add(parts, entry)
            except _Refused as error:
                problems.append(f"{_shown(entry.name)}: {error}")
                if len(problems) == _MOST_PROBLEMS:
                    return problems
        for parts in tree.links:
            try:
                tree.link(parts, for_good=not problems)
            except _Refused as error:
                problems.append(f"{_shown(b'/'.join(parts))}: {error}")
    return problems[:_MOST_PROBLEMS]


class _Tree:
    """The directory into which an archive is unpacked, and the links to make in it at the end."""

    def __init__(self, root: Path, budget: Budget) -> None:
        self.links: dict[_Parts, bytes] = {}
        self._budget = budget
        self._root = os.open(root, _DIRECTORY)
        self._last: tuple[_Parts, int] = ((), os.dup(self._root))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._root)
        os.close(self._last[1])

    def check(self, parts: _Parts, entry: Entry) -> None:
        """Refuse an entry for its own kind, name or target, whatever the other entries are."""
        if entry.kind == "refused":
            raise _Refused(entry.target.decode())
        if not parts and entry.kind != "directory":
            raise _Refused("an empty name")
        if entry.kind == "hard link":
            _parts(entry.target)
        if entry.kind == "link":
            _check_target(entry.target)

    def add(self, parts: _Parts, entry: Entry) -> None:
        """Make the file, directory or hard link of an entry. A link is only remembered."""
        above = self._parent(parts[:-1])
        match entry.kind:
            case "directory" if parts:
                os.close(_entered(above, parts[-1], count=lambda: None))
            case "file":
                self._write(above, parts[-1], entry)
            case "hard link":
                self._link_hard(above, parts, _parts(entry.target))
            case "link":
                self.links[parts] = entry.target

    def link(self, parts: _Parts, *, for_good: bool) -> None:
        """Check that a link stays in the archive and goes through no other link; make it if `for_good`."""
        target = self.links[parts]
        at = list(parts[:-1])
        steps = [one for one in target.split(b"/") if one not in {b"", b"."}]
        for number, step in enumerate(steps):
            if step != b"..":
                at.append(step)
            elif at:
                at.pop()
            else:
                raise _Refused("a link that leaves the archive")
            if number + 1 < len(steps) and tuple(at) in self.links:
                raise _Refused("a link that leads through another link")
        above = self._parent(parts[:-1])
        if for_good:
            try:
                os.symlink(target, parts[-1], dir_fd=above)
            except FileExistsError:
                raise _Refused("a link and also another entry") from None

    def _parent(self, parts: _Parts) -> int:
        """Return a descriptor of a directory, which is made if it is missing. It stays open until the next call."""
        known, descriptor = self._last
        if known != parts:
            place = self._walk(parts, make=True)
            os.close(descriptor)
            self._last = (parts, place)
        return self._last[1]

    def _walk(self, parts: _Parts, *, make: bool) -> int:
        """Open a directory, component by component from the top. The caller closes the descriptor.

        Raises:
            FileNotFoundError: It is missing, and `make` is false.
        """
        place = os.dup(self._root)
        try:
            for number, part in enumerate(parts):
                if parts[: number + 1] in self.links:
                    raise _Refused("below a link")
                outer, place = (
                    place,
                    _entered(place, part, count=self._budget.count if make else None),
                )
                os.close(outer)
        except BaseException:
            os.close(place)
            raise
        return place

    def _write(self, above: int, name: bytes, entry: Entry) -> None:
        chunk = entry.read(CHUNK)
        if name.startswith(b"._") and chunk.startswith(_APPLE_DOUBLE):
            return
        _make_room(above, name)
        with open(os.open(name, _NEW_FILE, 0o600, dir_fd=above), "wb") as copy:  # noqa: PTH123 - a descriptor
            while chunk:
                copy.write(chunk)
                chunk = entry.read(CHUNK)

    def _link_hard(self, above: int, parts: _Parts, target: _Parts) -> None:
        if not target or target == parts:
            raise _Refused("a hard link to itself or to nothing")
        try:
            place = self._walk(target[:-1], make=False)
        except FileNotFoundError:
            raise _Refused(_NOT_BEFORE) from None
        try:
            facts = os.stat(target[-1], dir_fd=place, follow_symlinks=False)
            if not stat.S_ISREG(facts.st_mode):
                raise _Refused("a hard link to a directory")
            _make_room(above, parts[-1])
            os.link(
                *(target[-1], parts[-1]),
                src_dir_fd=place,
                dst_dir_fd=above,
                follow_symlinks=False,
            )
        except FileNotFoundError:
            raise _Refused(_NOT_BEFORE) from None
        finally:
            os.close(place)


def _entered(above: int, name: bytes, *, count: Callable[[], None] | None) -> int:
    """Open a directory in another one. If it is missing and `count` is given, call `count` and make it."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=above)
    except FileNotFoundError:
        if count is None:
            raise
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
        raise _Refused(_TWICE) from None
    count()
    os.mkdir(name, 0o700, dir_fd=above)
    return os.open(name, _DIRECTORY, dir_fd=above)


def _make_room(above: int, name: bytes) -> None:
    """Remove the file that an earlier entry of this name made."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=above)
    except (IsADirectoryError, PermissionError):  # the first is Linux's, the second is POSIX's
        raise _Refused(_TWICE) from None


def _parts(name: bytes) -> _Parts:
    if len(name) > _LONGEST:
        raise _Refused(f"a path of more than {_LONGEST} bytes")
    # SageMaker packs a directory as "/", which is the root of the archive itself.
    if name.startswith(b"/") and name.strip(b"/"):
        raise _Refused("an absolute path")
    parts = tuple(one for one in name.split(b"/") if one not in {b"", b"."})
    if b".." in parts:
        raise _Refused("a path that leaves the archive")
    if b"\0" in name or any(len(one) > _LONGEST_NAME for one in parts):
        raise _Refused(f"a name that has a NUL, or more than {_LONGEST_NAME} bytes")
    if len(parts) > _DEEPEST:
        raise _Refused(f"more than {_DEEPEST} directories deep")
    return parts


def _check_target(target: bytes) -> None:
    if target.startswith(b"/"):
        raise _Refused("a link to an absolute path")
    if not target or b"\0" in target or len(target) > _LONGEST:
        raise _Refused(f"a link to nothing, or to a path with a NUL or more than {_LONGEST} bytes")


def _shown(name: bytes) -> str:
    text = shown(os.fsdecode(name[:_LONGEST]))
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"
