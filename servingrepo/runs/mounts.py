"""Network file systems: find their mounts, and find out whether they answer, without a wait for a dead server.

If the server of a network file system is gone, a call returns only when the server is back. On some systems the
process that called cannot even be killed until then. So a child process makes the call, and we can leave it behind.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from servingrepo.errors import StorageHung
from servingrepo.runs.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "RUN_WAIT",
    "ask",
    "bucket_mount",
    "hung",
    "mount_table",
    "network_mount",
    "network_mounts",
    "refuse_hung",
]

RUN_WAIT = 30.0
"""Seconds that a network file system may take to answer; then it counts as hung."""

_NETWORK = (
    *("nfs", "cifs", "smb", "ceph", "lustre", "gpfs", "beegfs", "afs", "9p", "fuse", "glusterfs"),
    *("davfs", "autofs"),
)
"""Types of file systems whose server may be gone; an autofs is not mounted yet."""
_LOCAL_FUSE = {"fuseblk", "fuse.lxcfs", "fuse.fuse-overlayfs", "fuse.bindfs", "fuse.mergerfs"}
_MOUNT_POINT = 4
_OCTAL = re.compile(r"\\([0-7]{3})")
_MOST_LINKS = 40
# NFS, SMB and FUSE do not cache the answer of statfs(2): each call asks the server.
_QUESTION = "import os, sys; os.statvfs(sys.argv[1])"


def mount_table() -> str:
    """Return the text of /proc/self/mountinfo; empty if it does not exist. This calls no network file system."""
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def network_mounts(mountinfo: str) -> frozenset[str]:
    """Return where network file systems are mounted, from the text of /proc/self/mountinfo (proc(5))."""
    # A mount on top of another one comes later, and replaces it here.
    kinds = {place: kind for place, kind, _ in _mounts(mountinfo)}
    return frozenset(place for place, kind in kinds.items() if kind.startswith(_NETWORK))


def bucket_mount(path: Path, mountinfo: str | None = None) -> str:
    """Return type and source of the FUSE mount that a path is on, such as of a bucket; empty if it is on another one.

    File systems that only show local directories or disks in another way are none.

    Args:
        path: The path; its links are followed.
        mountinfo: The text of /proc/self/mountinfo, by default this process'.
    """
    here = os.path.realpath(path)
    best, said = "", ""
    for place, kind, source in _mounts(mount_table() if mountinfo is None else mountinfo):
        if here == place or here.startswith(f"{place.rstrip('/')}/"):
            nearer = len(place) >= len(
                best
            )  # a later mount on the same place replaces the one before
            best, said = (place, f"{kind}, {source}") if nearer else (best, said)
            if nearer and (not kind.startswith("fuse") or kind in _LOCAL_FUSE):
                said = ""
    return said


def _mounts(mountinfo: str) -> Iterator[tuple[str, str, str]]:
    """Yield place, type and source of each mount (proc(5)). Spaces and the like are octal escapes there."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, about = before.split(" "), after.split(" ")
        if after and len(fields) > _MOUNT_POINT:
            place = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[_MOUNT_POINT])
            yield place, about[0], about[1] if len(about) > 1 else ""


def network_mount(path: Path) -> str | None:
    """Return the network mount that a path leads to or through; None if it stays on local disks.

    Links on local disks are followed. Nothing on a network mount is read.
    """
    mounts = network_mounts(mount_table())
    if not mounts:
        return None
    at = ""
    links = 0
    ahead = list(reversed(Path.cwd().joinpath(path).parts[1:]))
    while True:
        if (at or "/") in mounts:
            return at or "/"
        if not ahead:
            return None
        name = ahead.pop()
        if name == "..":
            at = at.rpartition("/")[0]
            continue
        below = f"{at}/{name}"
        target = ""
        with suppress(OSError):  # it is no link
            target = str(Path(below).readlink()) if below not in mounts else ""
        if not target:
            at = below
            continue
        links += 1
        if links > _MOST_LINKS:
            return None
        if target.startswith("/"):
            at = ""
        ahead += [part for part in reversed(Path(target).parts) if part != "/"]


def ask(path: Path) -> int:
    """Start a process that ends when the file system of a path has answered; return the process id."""
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0o600) for number in range(3)]
    question = [sys.executable, "-I", "-S", "-c", _QUESTION, os.fspath(path)]
    return os.posix_spawn(sys.executable, question, {**os.environ}, file_actions=nowhere)


def hung(path: Path, mount: str, seconds: float) -> StorageHung:
    """Return the error for a path on a mount that did not answer within `seconds`."""
    return StorageHung(
        f"{shown(str(path))} cannot be read: the network file system mounted at {shown(mount)} has not answered "
        f"for {seconds:g} s",
        hint="bring its server back, or copy the run to a local disk; --run-wait gives it more time",
    )


def refuse_hung(path: Path, *, seconds: float = RUN_WAIT) -> None:
    """Refuse a path on a network file system that does not answer; return at once for a path on local disks.

    Raises:
        StorageHung: The file system does not answer in time. The child process is killed, and ends as soon as the
            kernel lets it.
    """
    mount = network_mount(path)
    if mount is None:
        return
    asking = ask(path)
    answered = threading.Event()

    def reap() -> None:
        os.waitpid(asking, 0)
        answered.set()

    threading.Thread(target=reap, name="servingrepo-mount", daemon=True).start()
    if not answered.wait(seconds):
        os.kill(asking, signal.SIGKILL)
        raise hung(path, mount, seconds)
