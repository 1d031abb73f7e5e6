"""What lies on disk, to compare before and after."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def snapshot(root: Path, *, burnt: str | None = None) -> dict[str, object]:
    """Return everything below a directory: kinds, modes, bytes, where links lead.

    Args:
        root: The directory.
        burnt: A model for which a number was legitimately reserved: its state file, its folder without
            versions, and what is never content (the locks) are left out.
    """
    left_out = {".servingrepo/lock", ".servingrepo/smoke-lock"}
    if burnt is not None:
        left_out |= {f".servingrepo/models/{burnt}.json"}
        left_out |= {f"models/{burnt}", f"models/{burnt}/.staging"}
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        facts = path.lstat()
        if name in left_out and not (stat.S_ISDIR(facts.st_mode) and _has_content(path)):
            continue
        content: object = None
        if stat.S_ISLNK(facts.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(facts.st_mode):
            content = path.read_bytes()
        found[name] = (stat.filemode(facts.st_mode), content)
    return found


def _has_content(folder: Path) -> bool:
    """Tell whether there is more in a folder than empty folders."""
    return any(not path.is_dir() or path.is_symlink() for path in folder.rglob("*"))
