"""File systems in a file, mounted: copying the file while they are in use is what a power loss leaves of them.

The copy has what the file system had written to its disk, and nothing of what it kept in memory. Mounting the copy
replays its journal, as the machine would at its next start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {
    "ext4": ("64M", ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"), "loop"),
    "xfs": ("304M", ("mkfs.xfs", "-q"), "loop,nouuid"),
}
"""By name: the size (the smallest that mkfs takes, or about), how one is made, and how it is mounted."""


def why_not(kind: str) -> str:
    """Return why there can be no such file system here; empty if there can."""
    if os.geteuid() != 0:
        return "only root may mount a file system"
    program = KINDS[kind][1][0]
    if shutil.which(program) is None:
        return f"{program} is not installed (tests/crash/prepare installs it)"
    with tempfile.TemporaryDirectory(prefix="servingrepo-image-") as name:
        try:
            with mounted(make_image(Path(name) / "image", kind), Path(name) / "here", kind):
                return ""
        except subprocess.CalledProcessError as error:
            return f"no {kind} can be mounted here: {error.stderr.decode().strip()}"


def make_image(path: Path, kind: str) -> Path:
    """Make a file with an empty file system in it."""
    size, make, _ = KINDS[kind]
    _run("truncate", "-s", size, path)
    _run(*make, path)
    return path


@contextmanager
def mounted(image: Path, place: Path, kind: str) -> Iterator[Path]:
    """Mount an image for the block."""
    place.mkdir(exist_ok=True)
    _run("mount", "-t", kind, "-o", KINDS[kind][2], image, place)
    try:
        yield place
    finally:
        _unmount(place)


def _unmount(place: Path) -> None:
    """Unmount; whoever only looks at it (an indexer, a disk monitor) may keep it busy for a moment."""
    for _ in range(50):
        try:
            _run("umount", place)
        except subprocess.CalledProcessError:
            time.sleep(0.1)
        else:
            return
    _run("umount", "--lazy", place)


def copy_image(image: Path, target: Path) -> Path:
    """Copy an image that is in use; again, if the file system wrote to it meanwhile.

    A copy that saw a later block and not an earlier one would be no state that the disk ever had.
    """
    while True:
        before = image.stat().st_mtime_ns
        _run("cp", "--sparse=always", image, target)
        if image.stat().st_mtime_ns == before:
            return target


def sync(place: Path) -> None:
    """Make all of a file system durable."""
    _run("sync", "--file-system", place)


def _run(*arguments: str | Path) -> None:
    subprocess.run([str(one) for one in arguments], check=True, capture_output=True)
