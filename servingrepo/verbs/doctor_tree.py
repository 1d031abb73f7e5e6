"""A tree of models as `doctor` reads it, once, in bounded time and without leaving it; and what is wrong there.

A link is followed only if it stays in the tree. FIFOs, sockets and devices are named and never opened. A directory
that cannot be read is a part of the value, not an error.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.modelconfig.disk import DiskFacts, EntryKind
from servingrepo.modelconfig.names import version_of_entry
from servingrepo.repository.config import MODEL_FILES
from servingrepo.runs.values import shown
from servingrepo.storage.beneath import entries_of, holds, open_plain
from servingrepo.texts import some
from servingrepo.verbs.doctor_rules import found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.storage.beneath import Kind
    from servingrepo.verbs.doctor_rules import Finding

__all__ = [
    "Base",
    "Child",
    "Tree",
    "judge_base",
    "judge_tree",
    "read_base",
    "read_tree",
    "unreadable_by",
]

MOST_NAMES = 100_000
"""Names of one directory that are read."""
_MOST_FOLDERS = 20_000
_DEEPEST = 4
"""Levels below the models directory at which base paths are looked for; entries of a config may name deeper ones."""
_DEEPEST_FILE = 16
_MOST_FILES = 10_000
_LIKE_A_VERSION = re.compile(r"(?:v|ver|version)?[._-]?\d+(?:[._-]\d+)*", re.IGNORECASE)
_NO_MODELS = frozenset({"lost+found"})
_PARTS = (
    "keras_metadata.pb",
    "saved_model_config.pb",
    "saved_model.pb",
    "saved_model.pbtxt",
    "variables",
    "assets",
    "assets.extra",
    "fingerprint.pb",
)
_INTO = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A child of a base path: a version to servers, or a directory with a SavedModel that is none to them.

    `real` is the directory itself, without links; empty if there is none to go on from. `target` is what a link says.
    `inner` is the directory in it that has the SavedModel which it lacks itself.
    """

    name: str
    version: int | None
    kind: EntryKind
    real: str = ""
    target: str = ""
    inner: str = ""


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """A model's directory: below the tree its `name`, on this machine its `path`.

    Attributes:
        name: Its path below the models directory.
        path: Its path on this machine.
        boundary: The directory that no link of it is followed out of.
        children: Its versions, and what looks like one.
        flat: The parts of a SavedModel that lie directly in it.
        problem: Why it cannot be read; empty if it can.
        link: Where it leads if it is a link that leaves the tree; such a link is not followed.
        complete: Whether all its names were read.
    """

    name: str
    path: str
    boundary: str = ""
    children: tuple[Child, ...] = ()
    flat: tuple[str, ...] = ()
    problem: str = ""
    link: str = ""
    complete: bool = True

    @property
    def versions(self) -> tuple[Child, ...]:
        """The children that servers take for versions, the lowest first."""
        numbered = [one for one in self.children if one.version is not None]
        return tuple(sorted(numbered, key=lambda one: (one.version or 0, one.name)))

    def facts(self, *, mounted_alone: bool) -> DiskFacts | None:
        """Return what `config check` asks of a base path; None if that is not known.

        What is behind a link that leaves the tree is missing to a container that mounts the tree alone. To another
        server it may be there.
        """
        if self.problem or (self.link and not mounted_alone):
            return None
        unknown: EntryKind = "link-out" if mounted_alone else "unreadable"
        return DiskFacts(
            exists=not self.link,
            entries={
                one.name: unknown if one.kind == "link-out" else one.kind for one in self.versions
            },
            flat=bool(MODEL_FILES & set(self.flat)),
        )


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """The models below one directory."""

    root: str
    bases: tuple[Base, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    """Directories that could not be read, each with the reason."""
    not_checked: tuple[str, ...] = ()


def read_tree(root: Path) -> Tree:
    """Read the models below a directory.

    Raises:
        OSError: The directory itself cannot be read.
    """
    real = os.path.realpath(root)
    entries_of(real, most=1)
    walk = _Walk(real)
    walk.folder(real, "", 0)
    return Tree(
        root=str(root),
        bases=tuple(walk.bases),
        unread=tuple(walk.unread),
        not_checked=tuple(dict.fromkeys(walk.not_checked)),
    )


class _Walk:
    """Finds the base paths below one directory."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.bases: list[Base] = []
        self.unread: list[tuple[str, str]] = []
        self.not_checked: list[str] = []
        self._seen: set[str] = set()

    def folder(self, real: str, name: str, depth: int) -> None:
        """Read a directory: it is a base path, or holds some, or holds nothing."""
        if real in self._seen:
            return  # two links lead there
        self._seen.add(real)
        if len(self._seen) > _MOST_FOLDERS:
            self.not_checked.append(f"directories beyond the first {_MOST_FOLDERS:,}")
            return
        try:
            entries = entries_of(real, most=MOST_NAMES)
        except OSError as error:
            self.unread.append((real, error.strerror or str(error)))
            return
        below = [
            (one, kind)
            for one, kind in entries
            if kind in {"directory", "link"} and not one.startswith(".") and one not in _NO_MODELS
        ]
        if _is_base(real, entries) or (not entries and name):
            shown_name = name or Path(real).name
            self.bases.append(read_base(Path(real), shown_name, boundary=self.root))
            if name:
                return
            below = [(one, kind) for one, kind in below if version_of_entry(one) is None]
        if depth >= _DEEPEST:
            self.not_checked.append(f"what lies more than {_DEEPEST} levels below {self.root}")
            return
        for one, kind in below:
            self._below(f"{real}/{one}", f"{name}/{one}" if name else one, kind, depth + 1)

    def _below(self, path: str, name: str, kind: Kind, depth: int) -> None:
        """Go on in a directory, or in that which a link leads to if it stays in the tree."""
        if kind == "link":
            target = os.path.realpath(path)
            if not holds(self.root, target):
                link = Base(name=name, path=path, boundary=self.root, link=_target(path))
                self.bases.append(link)
                return
            if not Path(target).is_dir():
                return
            path = target
        self.folder(path, name, depth)


def _is_base(real: str, entries: list[tuple[str, Kind]]) -> bool:
    """Tell whether a directory with these entries is a base path, or is meant to be one."""
    if any(one in MODEL_FILES or version_of_entry(one) is not None for one, _ in entries):
        return True
    meant = [one for one, kind in entries if kind == "directory" and _LIKE_A_VERSION.fullmatch(one)]
    for one in meant[:8]:  # a model may have such a name, too
        try:
            names = {name for name, _ in entries_of(f"{real}/{one}", most=MOST_NAMES)}
        except OSError:
            continue
        if names & MODEL_FILES:
            return True
    return False


def read_base(path: Path, name: str, *, boundary: str) -> Base:
    """Read a base path and what each of its versions is.

    Args:
        path: The directory.
        name: Its path below the models directory.
        boundary: The directory that no link is followed out of, without links.
    """
    real = os.path.realpath(path)
    base = Base(name=name, path=str(path), boundary=boundary)
    if not holds(boundary, real):
        return msgspec.structs.replace(base, link=real)
    try:
        descriptor = open_plain(real)
    except OSError as error:
        return msgspec.structs.replace(base, problem=error.strerror or str(error))
    try:
        with os.scandir(descriptor) as scanned:
            entries = list(islice(scanned, MOST_NAMES + 1))
        children = [
            child
            for entry in entries[:MOST_NAMES]
            if (child := _child(descriptor, real, entry, boundary)) is not None
        ]
    except OSError as error:  # it is a file, say
        return msgspec.structs.replace(base, problem=error.strerror or str(error))
    finally:
        os.close(descriptor)
    names = {entry.name for entry in entries}
    return msgspec.structs.replace(
        base,
        children=tuple(sorted(children, key=lambda one: one.name)),
        flat=tuple(one for one in _PARTS if one in names) if MODEL_FILES & names else (),
        complete=len(entries) <= MOST_NAMES,
    )


def _child(at: int, parent: str, entry: os.DirEntry[str], boundary: str) -> Child | None:
    """Return a child that is a version to servers or has a SavedModel; None for all others."""
    version = version_of_entry(entry.name)
    hidden = entry.name.startswith(".") or entry.name in _PARTS
    if version is None and (hidden or not (entry.is_symlink() or entry.is_dir())):
        return None
    child = Child(name=entry.name, version=version, kind="not-a-directory")
    if entry.is_symlink():
        path = f"{parent}/{entry.name}"
        real, target = os.path.realpath(path), _target(path)
        child = msgspec.structs.replace(child, target=target)
        if not holds(boundary, real):
            child = msgspec.structs.replace(child, kind="link-out")
        elif not os.path.lexists(real):
            child = msgspec.structs.replace(child, kind="broken-link")
        elif Path(real).is_dir():
            child = _directory(child, real, None)
    elif entry.is_dir(follow_symlinks=False):
        child = _directory(child, f"{parent}/{entry.name}", at)
    meant = child.kind == "saved-model" and not child.target
    return child if version is not None or meant else None


def _directory(child: Child, real: str, at: int | None) -> Child:
    """Say what a directory is, by the names in it."""
    try:
        descriptor = os.open(child.name, _INTO, dir_fd=at) if at is not None else open_plain(real)
    except OSError:
        return msgspec.structs.replace(child, kind="unreadable")
    try:
        with os.scandir(descriptor) as scanned:
            names = {entry.name for entry in islice(scanned, MOST_NAMES)}
        kind: EntryKind = "no-saved-model" if names else "empty"
        kind = "saved-model" if names & MODEL_FILES else kind
        inner = _inner(descriptor, names) if kind == "no-saved-model" else ""
    except OSError:
        return msgspec.structs.replace(child, kind="unreadable")
    finally:
        os.close(descriptor)
    return msgspec.structs.replace(child, kind=kind, real=real, inner=inner)


def _inner(at: int, names: set[str]) -> str:
    """Return the one directory among few names that has a SavedModel: an export one level too deep."""
    for name in sorted(names)[:8]:
        try:
            descriptor = os.open(name, _INTO, dir_fd=at)
        except OSError:
            continue
        try:
            with os.scandir(descriptor) as scanned:
                if any(entry.name in MODEL_FILES for entry in islice(scanned, MOST_NAMES)):
                    return name
        finally:
            os.close(descriptor)
    return ""


def _target(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


# Judgement ----------------------------------------------------------------------------------------


def judge_tree(tree: Tree) -> Iterator[Finding]:
    """Yield what is wrong with the tree as a whole."""
    for path, why in tree.unread:
        yield found(
            "unreadable", f"it cannot be read: {why}", f"chmod a+rX {quoted(path)}", path=path
        )
    if not tree.bases and not tree.unread:
        yield found("no-models", "no directory in it has versions", path=tree.root)


def judge_base(base: Base, *, name: str) -> Iterator[Finding]:
    """Yield what is wrong with a model's directory, whatever a config says of it; `check_disk` finds the rest."""
    path = Path(base.path)
    if base.problem:
        yield found(
            "unreadable",
            f"it cannot be read: {base.problem}",
            f"chmod a+rX {quoted(path)}",
            model=name,
            path=path,
        )
    if base.link:
        yield found(
            "link-out",
            f"it is a link to {base.link}, which was not followed",
            without_links(path, base.link),
            model=name,
            path=path,
        )
    if base.flat and base.versions:
        first = base.versions[-1].name
        hidden = quoted(path / ".old")
        parts = " ".join(quoted(path / one) for one in base.flat)
        yield found(
            "two-saved-models",
            f"a SavedModel lies directly in it, and versions such as {first} beside it",
            f"mkdir {hidden} && mv {parts} {hidden}/; servingrepo diff {quoted(path)} {quoted(path / first)} "
            "compares them before",
            model=name,
            path=path,
        )
    for child in base.children:
        yield from _judge_child(child, base, name)
    if not base.complete:
        yield found(
            "unreadable",
            f"it has more than {MOST_NAMES:,} names, and only so many were read",
            "move what is no version away",
            model=name,
            path=path,
            severity="warning",
        )


def _judge_child(child: Child, base: Base, model: str) -> Iterator[Finding]:
    path = Path(base.path) / child.name
    if child.version is None:
        free = _number_in(child.name, {one.version or 0 for one in base.versions})
        yield found(
            "not-a-version",
            f"{child.name} has a SavedModel, and its name is no number",
            f"mv {quoted(path)} {quoted(path.parent / str(free))}",
            model=model,
            path=path,
        )
        return
    if child.name != str(child.version) or child.version < 1:
        plain = str(child.version if child.version > 0 else _next_number(base))
        taken = any(one.name == plain for one in base.children)
        yield found(
            "odd-version-name",
            f"servers read {child.name!r} as version {child.version}",
            "keep one of the directories of that number"
            if taken
            else f"mv {quoted(path)} {quoted(path.parent / plain)}",
            model=model,
            path=path,
        )
    if child.kind == "unreadable":
        yield found(
            "unreadable",
            "it cannot be read: no permission",
            f"chmod -R a+rX {quoted(path)}",
            model=model,
            path=path,
        )
    if child.kind == "link-out":
        yield found(
            "link-out",
            f"it is a link to {child.target}, which was not followed",
            without_links(path, child.target),
            model=model,
            path=path,
        )


def quoted(path: object) -> str:
    """Return a path as a shell takes it; control characters are escaped."""
    text = str(path)
    return (
        shlex.quote(text) if text.isprintable() else f"$'{text.encode('unicode_escape').decode()}'"
    )


def fix_for_flat(base: Base) -> str:
    """Return the command that gives a SavedModel a version's directory of its own."""
    parts = " ".join(quoted(f"{base.path}/{one}") for one in base.flat)
    hidden, first = quoted(f"{base.path}/.1"), quoted(f"{base.path}/1")
    return f"mkdir {hidden} && mv {parts} {hidden}/ && mv {hidden} {first}"


def fix_by_moving(path: Path) -> str:
    """Return the command that hides a directory from servers."""
    return f"mv {quoted(path)} {quoted(path.parent / f'.{path.name}.broken')}"


def fix_for_child(child: Child, path: Path) -> str:
    """Return the command that makes a directory which cannot be loaded a version, or takes it away."""
    here = quoted(path)
    if child.inner:
        away = f"{path}.tmp"
        inner = quoted(f"{away}/{child.inner}")
        return f"mv {here} {quoted(away)} && mv {inner} {here} && rmdir {quoted(away)}"
    if child.kind == "broken-link":
        if ".git/annex/" in child.target:
            return f"git annex get {here} && git annex unlock {here}"
        return f"rm {here}; or put the directory itself there"
    return f"{fix_by_moving(path)}; or copy the export again under a higher number"


def link_out_below(export: str, boundary: str) -> tuple[str, str] | None:
    """Return the first link of an export's files that leaves the boundary, and what it says; None without one."""
    ahead = [export]
    for folder in ahead:
        try:
            entries = entries_of(folder, most=_MOST_FILES)
        except OSError:
            continue
        for name, kind in entries:
            path = f"{folder}/{name}"
            if kind == "link" and not holds(boundary, os.path.realpath(path)):
                return path, _target(path)
            if kind == "directory" and folder == export:
                ahead.append(path)
    return None


def without_links(path: Path, target: str) -> str:
    """Return the command that puts files where a link is."""
    here = quoted(path)
    if ".dvc/" in target:
        return f"dvc config cache.type copy && dvc checkout --relink {here}"
    if ".git/annex/" in target:
        return f"git annex unlock {here}"
    copy = quoted(f"{path}.tmp")
    return f"cp -rL {here} {copy} && rm {here} && mv {copy} {here}; if what it leads to is meant to be served"


def _next_number(base: Base) -> int:
    return max(1, *(1 + (one.version or 0) for one in base.versions))


def _number_in(name: str, taken: set[int]) -> int:
    """Return the number that a name means if it is free, else the next one."""
    match = re.search(r"\d+", name)
    meant = int(match[0][:18]) if match is not None else 1
    return meant if meant and meant not in taken else max({0, *taken}) + 1


# Reading as another user --------------------------------------------------------------------------

_Need = Literal[4, 5]


def unreadable_by(user: tuple[int, int], place: Path, *, boundary: str) -> tuple[str, ...]:
    """Return what a user cannot read of a file or directory, by owners and modes; at most a screenful.

    Access lists and the rules of network file systems are not known here. Nothing is opened but directories.
    """
    if user[0] == 0:
        return ()
    real = os.path.realpath(place)
    if not holds(boundary, real):
        return ()
    closed: list[str] = []
    ahead = [(real, 0)]
    seen = 0
    while ahead and len(closed) < 20 and seen < _MOST_FILES:  # noqa: PLR2004 - a screenful
        at, depth = ahead.pop()
        seen += 1
        try:
            facts = Path(at).lstat()
        except OSError:
            continue
        is_directory = stat.S_ISDIR(facts.st_mode)
        if not (is_directory or stat.S_ISREG(facts.st_mode)):
            continue
        if not _may(facts, user, 5 if is_directory else 4):
            closed.append(at)
        elif is_directory and depth < _DEEPEST_FILE:
            try:
                ahead += [(f"{at}/{one}", depth + 1) for one, _ in entries_of(at, most=_MOST_FILES)]
            except OSError:
                continue
    return tuple(sorted(closed))


def closed_on_the_way(user: tuple[int, int], place: Path, *, boundary: str) -> tuple[str, ...]:
    """Return the directories from the boundary down to a place that a user cannot enter or list."""
    if user[0] == 0:
        return ()
    real = os.path.realpath(place)
    way = [one for one in (real, *map(str, Path(real).parents)) if holds(boundary, one)]
    closed = []
    for one in way:
        try:
            facts = Path(one).lstat()
        except OSError:
            continue
        if stat.S_ISDIR(facts.st_mode) and not _may(facts, user, 5):
            closed.append(one)
    return tuple(reversed(closed))


def _may(facts: os.stat_result, user: tuple[int, int], need: _Need) -> bool:
    """Tell whether owner, group or others have the bits that a user needs (path_resolution(7))."""
    shift = 6 if facts.st_uid == user[0] else 3 if facts.st_gid == user[1] else 0
    return (facts.st_mode >> shift) & need == need


def said_closed(paths: tuple[str, ...]) -> str:
    """Return paths for a message."""
    return some([shown(one) for one in paths])
