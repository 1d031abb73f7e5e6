"""List the names in a run directory, once and in bounded time, and read the starts and ends of its files.

Links are never followed out of the run. Directories that hold no runs (`.git`, caches) are left out. A run may have
50,000 files, so the listing ends after a number of levels, entries or seconds, whichever comes first.

The listing resolves links. Later reads follow no link: another user who may write in the run could put a link in the
place of a listed file.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from servingrepo.runs.mounts import mount_table, network_mounts
from servingrepo.storage.beneath import entries_of, holds, opened_plain, stat_plain
from servingrepo.storage.reading import is_left_by_macos

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = [
    "LINK_OUT",
    "SAVED_MODEL_FILES",
    "Folder",
    "Listing",
    "list_names",
    "read_end",
    "read_start",
]

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
"""A directory with one of these is a SavedModel (tensorflow/cc/saved_model/constants.h)."""

LINK_OUT = "a link out of the run or to nothing, which is not followed"

MAX_DEPTH = 4
MAX_ENTRIES = 250_000
MAX_SECONDS = 20.0
_FIRST_ENTRIES = 1_000
"""Entries of each directory that are listed first: a million files in one must not hide the export beside it."""
_MAX_LINKS = 2_000
_PARTS_OF_A_SAVED_MODEL = {"assets", "assets.extra", "variables", "debug"}
_HIDDEN_BUT_LISTED = {".hydra"}
"""Where Hydra writes a run's config.yaml."""
_LAST_DATE = 253_402_300_799.0
"""The last second of the year 9999, and the latest date of Python."""
_NO_RUNS = {"__MACOSX", "__pycache__", "node_modules", "site-packages"}


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """One directory: its regular files, links to regular files in the run, and the names of its directories."""

    real_path: str
    path: str
    """Below the run, `.` for the run itself."""
    depth: int
    files: dict[str, str]
    """Absolute path without links, by name."""
    folders: tuple[str, ...]
    """Names of its directories, links not included."""

    @property
    def is_saved_model(self) -> bool:
        """Tell whether saved_model.pb or saved_model.pbtxt is in it."""
        return any(name in self.files for name in SAVED_MODEL_FILES)

    def below(self, name: str) -> str:
        """Return a child's path below the run."""
        return name if self.path == "." else f"{self.path}/{name}"


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The names in a run, directories near the top first."""

    run: str
    folders: tuple[Folder, ...]
    links_out: tuple[tuple[str, str], ...]
    """(path below the run, target) of links that leave the run, or lead nowhere."""
    unreadable: tuple[str, ...]
    entries: int
    complete: bool


def list_names(
    run: str,
    *,
    max_depth: int = MAX_DEPTH,
    max_entries: int = MAX_ENTRIES,
    max_seconds: float = MAX_SECONDS,
    mounts: frozenset[str] | None = None,
    boundary: str | None = None,
) -> Listing:
    """List the names in a run directory and below.

    Args:
        run: The run directory, absolute and without links.
        max_depth: The levels below the run to list; the run itself is level 0.
        max_entries: The number of directory entries after which to stop.
        max_seconds: The time after which to stop.
        mounts: Directories to name as unreadable without entering them. By default these are the mounts of network
            file systems: if the server is gone, every call there would hang for ever.
        boundary: The directory that links may not leave. It contains the run; None means the run itself.

    Raises:
        OSError: The run itself cannot be listed. Unreadable directories below it are in `unreadable`.
    """
    ends = time.monotonic() + max_seconds
    if mounts is None:
        mounts = network_mounts(mount_table())
    seen: dict[str, _Listed] = {}
    unreadable: list[str] = []
    spent = 0
    passed_by = False
    queue = deque([_Next(path=".", real_path=run, depth=0)])
    queued = {"."}
    large: deque[_Next] = deque()
    while queue or large:
        if spent >= max_entries or time.monotonic() > ends:
            break
        at = queue.popleft() if queue else large.popleft()
        if at.depth and at.real_path in mounts:
            unreadable.append(at.path)
            passed_by = True
            continue
        try:
            listed = _list_folder(
                boundary or run, at, limit=_limit(at, max_entries - spent, seen=seen)
            )
        except OSError:
            if at.depth == 0:
                raise
            unreadable.append(at.path)
            continue
        spent += listed.entries
        if not listed.whole and at.path not in seen:
            large.append(at)
        seen[at.path] = listed
        deeper = at.deeper and at.depth < max_depth
        found = list(_folders_to_list(listed.folder)) if deeper else []
        # The target of a link such as `latest -> exports/3` may be the export; the directories in it are not.
        linked = listed.linked if at.depth == 0 else []
        for one in (*linked, *found):
            if one.path not in queued:
                queued.add(one.path)
                queue.append(one)
    # Large directories were finished last; in the result directories near the top come first all the same.
    ordered = sorted(seen.values(), key=lambda one: one.folder.depth)
    return Listing(
        run=run,
        folders=tuple(one.folder for one in ordered),
        links_out=tuple(link for one in ordered for link in one.links_out),
        unreadable=tuple(unreadable),
        entries=sum(one.entries for one in ordered),
        complete=not queue and not passed_by and all(one.whole for one in ordered),
    )


def _limit(at: _Next, left: int, *, seen: Collection[str]) -> int:
    """Return how many entries of a directory to list: few at first, but half of all entries for the run itself."""
    if at.path in seen:
        return left
    return min(left, max(_FIRST_ENTRIES, 0 if at.depth else left // 2))


def read_start(path: str, size: int) -> bytes:
    """Read at most `size` bytes from a regular file's start; return nothing if it cannot be read.

    Files that could block, such as a FIFO, are not opened, and links are not followed.
    """
    return _read(path, size, from_end=False)


def read_end(path: str, size: int) -> bytes:
    """Read at most `size` bytes from a regular file's end; return nothing if it cannot be read."""
    return _read(path, size, from_end=True)


def size_of(path: str) -> int:
    """Return a regular file's size in bytes; 0 if there is no such file."""
    facts = _facts(path)
    return facts.st_size if facts is not None else 0


def written(path: str) -> float:
    """Return when a regular file was last written, in seconds since the epoch; 0 if there is no such file.

    A file may have any time. The result is cut to a range of which Python can make a date.
    """
    facts = _facts(path)
    return min(max(facts.st_mtime, 0.0), _LAST_DATE) if facts is not None else 0.0


def _facts(path: str) -> os.stat_result | None:
    try:
        facts = stat_plain(path)
    except OSError:
        return None
    return facts if stat.S_ISREG(facts.st_mode) else None


class _Next(msgspec.Struct, frozen=True, kw_only=True):
    """A directory to list; `deeper` says whether to list its own directories too."""

    path: str
    real_path: str
    depth: int
    deeper: bool = True


class _Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One directory's entries."""

    folder: Folder
    linked: list[_Next]
    links_out: list[tuple[str, str]]
    entries: int
    whole: bool


def _list_folder(boundary: str, at: _Next, *, limit: int) -> _Listed:
    """List one directory, at most `limit` entries of it; links stay in the boundary."""
    entries = entries_of(at.real_path, most=limit + 1)
    files: dict[str, str] = {}
    folders: list[str] = []
    linked: list[_Next] = []
    links_out: list[tuple[str, str]] = []
    links = 0
    names = {name for name, _ in entries}
    for name, kind in entries[:limit]:
        if is_left_by_macos(name, names):
            continue
        real_path = f"{at.real_path.rstrip('/')}/{name}"
        if kind == "file":
            files[name] = real_path
        elif kind == "directory":
            folders.append(name)
        elif kind == "link" and links < _MAX_LINKS:
            links += 1
            path = name if at.path == "." else f"{at.path}/{name}"
            target, what = _target(boundary, real_path)
            if what == "file":
                files[name] = target
            elif what == "directory":
                linked.append(_Next(path=path, real_path=target, depth=1, deeper=False))
            elif what == "outside":
                links_out.append((path, target))
    return _Listed(
        folder=Folder(
            real_path=at.real_path,
            path=at.path,
            depth=at.depth,
            files=files,
            folders=tuple(folders),
        ),
        linked=linked,
        links_out=links_out,
        entries=min(len(entries), limit),
        whole=len(entries) <= limit and links < _MAX_LINKS,
    )


def _target(boundary: str, link: str) -> tuple[str, str]:
    """Return the target of a link and its kind. A target outside of the boundary is not opened."""
    target = os.path.realpath(link)
    if not holds(boundary, target):
        return target, "outside"
    try:
        mode = stat_plain(target).st_mode
    except OSError:
        return target, "outside"
    if stat.S_ISDIR(mode):
        return target, "directory"
    return target, "file" if stat.S_ISREG(mode) else "special"


def _folders_to_list(folder: Folder) -> Iterator[_Next]:
    """Yield the directories in a folder that may hold exports."""
    for name in folder.folders:
        part = folder.is_saved_model and (folder.depth > 0 or name in _PARTS_OF_A_SAVED_MODEL)
        hidden = name.startswith(".") and name not in _HIDDEN_BUT_LISTED
        if not part and not hidden and name not in _NO_RUNS:
            yield _Next(
                path=folder.below(name),
                real_path=f"{folder.real_path.rstrip('/')}/{name}",
                depth=folder.depth + 1,
            )


def _read(path: str, size: int, *, from_end: bool) -> bytes:
    try:
        with opened_plain(path) as descriptor:
            begin = max(0, os.fstat(descriptor).st_size - size) if from_end else 0
            return os.pread(descriptor, size, begin)
    except OSError:
        return b""
