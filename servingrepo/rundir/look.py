"""One bounded look at a run directory's names; contents are read elsewhere, and only a few bytes of them.

Links are never followed out of the run, directories that hold no runs (`.git`, caches) are left out, and the
look ends after a number of levels, entries and seconds, whichever comes first: a run may hold 50,000 files.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.rundir.mounts import mount_table, network_mounts
from servingrepo.storage.reading import is_left_by_macos

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = [
    "SAVED_MODEL_FILES",
    "Folder",
    "Look",
    "holds",
    "look",
    "read_end",
    "read_start",
]

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
"""A directory with one of these is a SavedModel (tensorflow/cc/saved_model/constants.h)."""

MAX_DEPTH = 4
MAX_ENTRIES = 250_000
MAX_SECONDS = 20.0
_FIRST_ENTRIES = 1_000
"""Of each directory at first: a million files in some must not keep the look from the export beside them."""
_MAX_LINKS = 2_000
_PARTS_OF_A_SAVED_MODEL = {"assets", "assets.extra", "variables", "debug"}
_HIDDEN_BUT_LOOKED_AT = {".hydra"}
"""Where Hydra writes a run's config.yaml."""
_NO_RUNS = {"__MACOSX", "__pycache__", "node_modules", "site-packages"}


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """One directory's files by name: regular ones, and links to regular files in the run."""

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


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a run saw, directories near the top first."""

    run: str
    folders: tuple[Folder, ...]
    links_out: tuple[tuple[str, str], ...]
    """(path below the run, target) of links that leave the run, or lead nowhere."""
    unreadable: tuple[str, ...]
    entries: int
    complete: bool


def look(
    run: str,
    *,
    max_depth: int = MAX_DEPTH,
    max_entries: int = MAX_ENTRIES,
    max_seconds: float = MAX_SECONDS,
    mounts: frozenset[str] | None = None,
    boundary: str | None = None,
) -> Look:
    """Look at the names in a run directory and below.

    Args:
        run: The run directory, absolute and without links.
        max_depth: How many levels below the run to list; the run itself is level 0.
        max_entries: After how many directory entries to stop.
        max_seconds: After how much time to stop.
        mounts: Directories that are not entered, but named as unreadable: by default the mounts of network file
            systems below the run, because one whose server is gone would hang every call for ever.
        boundary: What links may not leave, if that is a directory above the run.

    Raises:
        OSError: The run itself cannot be listed. Directories below it that cannot are in `unreadable`.
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
        found = list(_folders_to_list(listed.folder)) if _goes_deeper(at, max_depth) else []
        # `latest -> exports/3`: what a link names may be the export, but not what lies below that.
        linked = listed.linked if at.depth == 0 else []
        for one in (*linked, *found):
            if one.path not in queued:
                queued.add(one.path)
                queue.append(one)
    # Many entries in one directory may have been put off: those near the top come first all the same.
    ordered = sorted(seen.values(), key=lambda one: one.folder.depth)
    return Look(
        run=run,
        folders=tuple(one.folder for one in ordered),
        links_out=tuple(link for one in ordered for link in one.links_out),
        unreadable=tuple(unreadable),
        entries=sum(one.entries for one in ordered),
        complete=not queue and not passed_by and all(one.whole for one in ordered),
    )


def _limit(at: _Next, left: int, *, seen: Collection[str]) -> int:
    """Return how many entries of a directory to list: at first few, but of the run itself half of all."""
    if at.path in seen:
        return left
    return min(left, max(_FIRST_ENTRIES, 0 if at.depth else left // 2))


def _goes_deeper(at: _Next, max_depth: int) -> bool:
    return at.deeper and at.depth < max_depth


def holds(run: str, path: str) -> bool:
    """Tell whether a path is the run or below it, both absolute and without links."""
    return path == run or path.startswith(run.rstrip("/") + "/")


def read_start(path: str, size: int) -> bytes:
    """Read at most `size` bytes from a regular file's start; nothing if it cannot be read.

    Nothing is opened that could block, such as a FIFO, nor a link put there since the look.
    """
    return _read(path, size, from_end=False)


def read_end(path: str, size: int) -> bytes:
    """Read at most `size` bytes from a regular file's end; nothing if it cannot be read."""
    return _read(path, size, from_end=True)


class _Next(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that is to be listed, and whether its own directories are too."""

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
    with os.scandir(at.real_path) as scanned:
        entries = sorted(islice(scanned, limit + 1), key=lambda entry: entry.name)
    files: dict[str, str] = {}
    folders: list[str] = []
    linked: list[_Next] = []
    links_out: list[tuple[str, str]] = []
    links = 0
    names = {entry.name for entry in entries}
    for entry in entries[:limit]:
        if is_left_by_macos(entry.name, names):
            continue
        if entry.is_file(follow_symlinks=False):
            files[entry.name] = entry.path
        elif entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        elif entry.is_symlink() and links < _MAX_LINKS:
            links += 1
            path = entry.name if at.path == "." else f"{at.path}/{entry.name}"
            target, kind = _target(boundary, entry.path)
            if kind == "file":
                files[entry.name] = target
            elif kind == "directory":
                linked.append(_Next(path=path, real_path=target, depth=1, deeper=False))
            elif kind == "outside":
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
    """Say where a link leads and to what; a target outside of the boundary is not even looked at."""
    target = os.path.realpath(link)
    if not holds(boundary, target):
        return target, "outside"
    try:
        mode = Path(target).lstat().st_mode
    except OSError:
        return target, "outside"
    if stat.S_ISDIR(mode):
        return target, "directory"
    return target, "file" if stat.S_ISREG(mode) else "special"


def _folders_to_list(folder: Folder) -> Iterator[_Next]:
    """Yield the directories below one that may hold exports."""
    for name in folder.folders:
        part = folder.is_saved_model and (folder.depth > 0 or name in _PARTS_OF_A_SAVED_MODEL)
        hidden = name.startswith(".") and name not in _HIDDEN_BUT_LOOKED_AT
        if not part and not hidden and name not in _NO_RUNS:
            yield _Next(
                path=folder.below(name),
                real_path=f"{folder.real_path.rstrip('/')}/{name}",
                depth=folder.depth + 1,
            )


def _read(path: str, size: int, *, from_end: bool) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return b""
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return b""
        return os.pread(descriptor, size, max(0, facts.st_size - size) if from_end else 0)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
