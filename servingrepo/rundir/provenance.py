"""What can be said cheaply of where a run comes from. Every value is text; what is not known is left out."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.rundir.look import read_start

if TYPE_CHECKING:
    from servingrepo.rundir.values import Candidate

__all__ = ["git_head", "provenance"]

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"ref: (?P<name>refs/[^\s]+)")
_MAX_PACKED = 1_048_576


def provenance(run: str, export: Candidate) -> dict[str, str]:
    """Describe a run, absolute and without links, and the SavedModel found in it.

    `git_head_at_scan` is there if the run lies in a git work tree. It is the commit checked out now, which is
    not always the one that trained.
    """
    said = {
        "run": run,
        "run_name": Path(run).name,
        "saved_model": export.path,
        "export_written": datetime.fromtimestamp(export.written, UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
    }
    head = git_head(run)
    if head is not None:
        said["git_head_at_scan"] = head
    return said


def git_head(folder: str) -> str | None:
    """Read the commit of the work tree that a folder is in, from plain files; git is not run."""
    for parent in (Path(folder), *Path(folder).parents):
        git = parent / ".git"
        if git.is_dir():
            return _commit_of(git)
    return None


def _commit_of(git: Path) -> str | None:
    head = _text(git / "HEAD")
    ref = _REF.fullmatch(head)
    if ref is None:
        return head if _COMMIT.fullmatch(head) else None
    name = ref["name"]
    if ".." in name:
        return None
    loose = _text(git / name)
    if _COMMIT.fullmatch(loose):
        return loose
    packed = _text(git / "packed-refs", size=_MAX_PACKED)
    for line in packed.splitlines():
        commit, _, named = line.partition(" ")
        if named == name and _COMMIT.fullmatch(commit):
            return commit
    return None


def _text(path: Path, *, size: int = 4096) -> str:
    return read_start(str(path), size).decode("utf-8", "replace").strip()
