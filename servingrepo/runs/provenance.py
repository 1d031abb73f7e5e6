"""What can be said cheaply of where a run comes from. Every value is text; what is not known is left out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.runs.worktree import commit_of

if TYPE_CHECKING:
    from servingrepo.runs.values import Candidate

__all__ = ["provenance"]


def provenance(run: str, export: Candidate, *, unpacked: bool) -> dict[str, str]:
    """Describe a run, absolute and without links, and the SavedModel found in it.

    `git_head_at_scan` is there if the run lies in a git work tree. It is the commit checked out now, which is
    not always the one that trained. What an archive unpacked to lies in no work tree, whatever it has in it.
    """
    said = {
        "run": run,
        "run_name": Path(run).name,
        "saved_model": export.path,
        "export_written": datetime.fromtimestamp(export.written, UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
    }
    head = commit_of(Path(run)) if not unpacked else None
    if head is not None:
        said["git_head_at_scan"] = head
    return said
