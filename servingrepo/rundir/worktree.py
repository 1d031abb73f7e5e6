"""The git work tree that a directory lies in: its commit, and whether files differ from it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Literal

from servingrepo.errors import StorageHung
from servingrepo.rundir.mounts import refuse_hung
from servingrepo.rundir.origin import Code
from servingrepo.rundir.provenance import git_head

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["code_of"]

_SECONDS = 10.0
# A repository may name programs that git runs on the way; a run directory is not to be trusted with that.
_GIT = (
    *("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"),
    *("-c", "core.untrackedCache=false", "--no-optional-locks"),
)


def code_of(
    folder: Path, *, of: Literal["run", "working directory"], seconds: float = _SECONDS
) -> Code | None:
    """Describe the work tree that a directory lies in; None if it lies in none.

    Without git, or where it refuses or takes longer than that, the commit is read from plain files, and whether
    files differ stays unknown. Files that git does not track do not count: runs often lie there. Nothing is said
    of a working directory on a network file system that hangs.
    """
    try:
        refuse_hung(folder, seconds=seconds)
    except StorageHung:
        return None
    question = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    said = _git(folder, *question, seconds=seconds)
    if said is None:
        head = git_head(str(folder))
        return Code(commit=head, of=of) if head is not None else None
    commit = branch = ""
    dirty = False
    for line in said.splitlines():
        if line.startswith("# branch.oid "):
            commit = line.removeprefix("# branch.oid ")
        elif line.startswith("# branch.head "):
            branch = line.removeprefix("# branch.head ")
        elif not line.startswith("#"):
            dirty = True
    if not commit or commit.startswith("("):
        return None
    return Code(commit=commit, of=of, branch=branch if branch != "(detached)" else "", dirty=dirty)


def _git(folder: Path, *arguments: str, seconds: float) -> str | None:
    # GIT_DIR and the like, as hooks have them, would point to another repository.
    kept = {name: value for name, value in {**os.environ}.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            [*_GIT, "-C", str(folder), *arguments],
            env={**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "backslashreplace") if done.returncode == 0 else None
