"""Describe the git work tree of a directory: its commit and branch, and whether files differ from the commit.

A run is hostile, and git runs the commands that a repository's configuration names: filters, fsmonitor, hooks, diff
programs, and those of its submodules. So we read commit and branch from plain files. To compare files, git gets a git
directory that we make: it has the run's index and objects, but no configuration of the run that could name a command.
"""

from __future__ import annotations

import os
import re
import resource
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import StorageHung
from servingrepo.runs.mounts import network_mount, refuse_hung
from servingrepo.runs.origin import Code
from servingrepo.storage.beneath import opened_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["code_of", "commit_of"]

_SECONDS = 10.0
_PREFIX = "servingrepo-git-"
_SMALL = 65_536
_LARGEST = 64 << 20
"""The most bytes of an index or of packed-refs; larger files are not read."""
_MEMORY = 4 << 30
_ASKED = 100
"""The most files whose attributes we ask for; if these do not decide, the others are not asked for."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"ref: (?P<name>refs/[!-~]{1,250})")
_SETTING = r"(?im)^[ \t]*{name}[ \t]*=(.*)$"
_COMPARING = ("filemode", "symlinks", "ignorecase", "autocrlf", "eol")
"""Settings of a repository that decide whether a file is the same. Their values are words, and never commands."""
_CONVERTING = ("filter", "ident", "working-tree-encoding")
"""Attributes by which an unchanged file may have other bytes than the commit."""


class _Git(msgspec.Struct, frozen=True, kw_only=True):
    """A work tree, and where git keeps what belongs to it."""

    top: Path
    own: Path
    """The directory with HEAD and the index."""
    common: Path
    """The directory with refs and objects; other work trees may share it."""


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """The commit that is checked out; the branch is empty if HEAD is detached."""

    commit: str
    branch: str = ""


def commit_of(folder: Path) -> str | None:
    """Return the commit of the work tree in which a directory lies, without running git."""
    git = _find(folder)
    head = _head(git) if git is not None else None
    return head.commit if head is not None else None


def code_of(
    folder: Path, *, of: Literal["run", "working directory"], seconds: float = _SECONDS
) -> Code | None:
    """Describe the work tree in which a directory lies; None if there is none, or its commit cannot be read.

    Whether files differ stays unknown if git is missing, if it takes more than `seconds`, or if only a command of the
    repository could tell. Untracked files do not count, because runs often are untracked. Submodules do not count
    either. The result is also None if the network file system of the directory hangs.
    """
    try:
        refuse_hung(folder, seconds=seconds)
    except StorageHung:
        return None
    git = _find(folder)
    head = _head(git) if git is not None else None
    if git is None or head is None:
        return None
    import subprocess  # 3 ms that a run outside of a repository need not pay

    try:
        dirty = _differs(git, head.commit, seconds=seconds)
    except (OSError, subprocess.SubprocessError):
        dirty = None
    return Code(commit=head.commit, of=of, branch=head.branch, dirty=dirty)


# plain files ----------------------------------------------------------------------------------------


def _find(folder: Path) -> _Git | None:
    """Find `.git` as git does, in a directory or above it.

    Another user may have put it there, above all in /tmp. So its owner must be our user, root, the owner of the
    directory, or the owner of the directory with `.git`.
    """
    place = Path(os.path.realpath(folder))
    try:
        trusted = {0, os.geteuid(), place.stat().st_uid}
    except OSError:
        return None
    for top in (place, *place.parents):
        git = top / ".git"
        try:
            facts, above = git.lstat(), top.stat()
        except OSError:
            continue
        if facts.st_uid not in {*trusted, above.st_uid}:
            return None
        if stat.S_ISDIR(facts.st_mode):
            return _Git(top=top, own=git, common=git)
        return _linked(top, git) if stat.S_ISREG(facts.st_mode) else None
    return None


def _linked(top: Path, git: Path) -> _Git | None:
    """Follow the `.git` file of a linked work tree or a submodule to its git directory, which must name this place.

    A hostile run can name any repository of another user, but that repository does not name the run.
    """
    pointer = _text(top, git.name)
    own = _named(top, pointer.removeprefix("gitdir: "))
    if own is None or not pointer.startswith("gitdir: "):
        return None
    back = _text(own, "gitdir")
    if not back:
        return _Git(top=top, own=own, common=own) if _home(own) == top else None
    common = _named(own, _text(own, "commondir"))
    if common is None or own.parent != common / "worktrees" or _named(own, back) != git:
        return None
    return _Git(top=top, own=own, common=common)


def _home(own: Path) -> Path | None:
    """Return the work tree that a repository's configuration names, as a submodule's does."""
    return _named(own, _setting(own, "worktree"))


def _named(folder: Path, path: str) -> Path | None:
    """Resolve a path from a file in a folder; None if it is empty, or on another network mount, which may hang."""
    place = folder / path
    if not path or "\0" in path or network_mount(place) not in {None, network_mount(folder)}:
        return None
    return Path(os.path.realpath(place))


def _head(git: _Git) -> _Head | None:
    text = _text(git.own, "HEAD")
    ref = _REF.fullmatch(text)
    if ref is None:
        return _Head(commit=text) if _COMMIT.fullmatch(text) else None
    name = ref["name"]
    commit = _commit(git.common, name)
    branch = name.removeprefix("refs/heads/")
    return _Head(commit=commit, branch=branch) if commit else None


def _commit(common: Path, name: str) -> str:
    """Return the commit of a ref; empty if there is none, or if the repository has another format of refs."""
    loose = _text(common, name)
    if _COMMIT.fullmatch(loose):
        return loose
    for line in _text(common, "packed-refs", most=_LARGEST).splitlines():
        commit, _, named = line.partition(" ")
        if named == name and _COMMIT.fullmatch(commit):
            return commit
    return ""


def _setting(own: Path, name: str) -> str:
    """Return a setting of a repository from any section; empty if it is not set."""
    found = re.findall(_SETTING.format(name=name), _text(own, "config"))
    return found[-1].strip().strip('"') if found else ""


def _text(folder: Path, name: str, *, most: int = _SMALL) -> str:
    try:
        with _opened(folder, name) as file:
            data = file.read(most + 1)
    except OSError:
        return ""
    return data.decode("utf-8", "replace").strip() if len(data) <= most else ""


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[IO[bytes]]:
    """Open a file of a git directory for the block, without following links. The directory's path has none.

    Raises:
        OSError: It does not exist, or is no regular file.
    """
    with (
        opened_plain(f"{folder}/{name}") as descriptor,
        open(descriptor, "rb", closefd=False) as file,
    ):
        yield file


# what git compares ----------------------------------------------------------------------------------


def _differs(git: _Git, commit: str, *, seconds: float) -> bool | None:
    """Tell whether tracked files differ from a commit; None if that is unknown.

    Raises:
        OSError, subprocess.SubprocessError: Git is missing, fails, or takes too long.
    """
    if _setting(git.own, "worktree") and _home(git.own) != git.top:
        return None
    from tempfile import gettempdir

    from servingrepo.storage.scratch import scratch

    with scratch(Path(gettempdir()), _PREFIX) as place:
        _make_git_directory(place, git, commit)
        question = ("status", "--porcelain=v2", "-z", "--untracked-files=no", "--no-renames")
        said = _run(git, place, *question, "--ignore-submodules=all", seconds=seconds)
        changed = [line for line in said.split("\0") if line and not line.startswith("#")]
        unsure = [path for line in changed if (path := _bytes_alone(line))]
        if len(unsure) < len(changed) or not changed:
            return bool(changed)
        return None if _all_converted(git, place, unsure[:_ASKED], seconds=seconds) else True


def _bytes_alone(line: str) -> str:
    """Return the path of an entry whose file differs from the index only in its bytes; empty for other entries."""
    kind, _, rest = line.partition(" ")
    state, _, _, in_index, on_disk, _, _, path = rest.split(" ", 7)
    return path if (kind, state) == ("1", ".M") and in_index == on_disk else ""


def _all_converted(git: _Git, place: Path, paths: Sequence[str], *, seconds: float) -> bool:
    """Tell whether each path has an attribute by which an unchanged file may have other bytes."""
    said = _run(git, place, "check-attr", "-z", *_CONVERTING, "--", *paths, seconds=seconds)
    values = said.split("\0")[2::3]
    each = (values[at : at + len(_CONVERTING)] for at in range(0, len(values), len(_CONVERTING)))
    return all(set(one) - {"unspecified", "unset"} for one in each)


def _make_git_directory(place: Path, git: _Git, commit: str) -> None:
    """Make a git directory with the run's index and attributes. Nothing in it names a command."""
    long = len(commit) > 40  # noqa: PLR2004 - SHA-1 has 40 digits, SHA-256 64
    settings = {name: _setting(git.common, name).lower() for name in _COMPARING}
    lines = [
        *("[core]", f"repositoryformatversion = {int(long)}", "bare = false"),
        *(f"{name} = {value}" for name, value in settings.items() if re.fullmatch("[a-z]+", value)),
        "packedGitLimit = 1g",
        *(("[extensions]", "objectFormat = sha256") if long else ()),
        *("[index]", "threads = 1"),
    ]
    (place / "refs").mkdir()
    (place / "info").mkdir()
    (place / "HEAD").write_text(f"{commit}\n")
    (place / "config").write_text("\n".join(lines) + "\n")
    attributes = _text(git.common, "info/attributes")
    (place / "info/attributes").write_text(attributes + "\n", encoding="utf-8")
    with _opened(git.own, "index") as file:
        facts = os.fstat(file.fileno())
        if facts.st_size > _LARGEST:
            raise OSError("its index is very large")
        index = place / "index"
        index.write_bytes(file.read(_LARGEST))
        # The index keeps its time: git compares the bytes of files that are as new as the index.
        os.utime(index, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _run(git: _Git, place: Path, *arguments: str, seconds: float) -> str:
    # Hooks get GIT_DIR and the like, which point to another repository.
    kept = {name: value for name, value in {**os.environ}.items() if not name.startswith("GIT_")}
    ours = {
        "GIT_DIR": str(place),
        "GIT_WORK_TREE": str(git.top),
        "GIT_OBJECT_DIRECTORY": str(git.common / "objects"),
        # The configurations of the user and the machine name filters too. Old releases of git know only HOME.
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "HOME": str(place),
        "XDG_CONFIG_HOME": str(place),
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    import subprocess

    with subprocess.Popen(  # nosec B603 B607 # git, in a directory of ours, without what a run could have it start
        ["git", "--no-optional-locks", "-C", git.top, *arguments],
        env={**kept, **ours},
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            resource.prlimit(child.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            said, _ = child.communicate(timeout=seconds)
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise subprocess.SubprocessError(f"git ended with {child.returncode}")
    return said.decode("utf-8", "surrogateescape")
