"""Removes containers that killed commands left.

Labels on each container name its transaction, the process that started it, and the time at which it expires. The next
command that uses Docker removes such containers, and so does `recover`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servingrepo.servers.engines.docker_daemon import connect

if TYPE_CHECKING:
    from servingrepo.deadline import Deadline
    from servingrepo.servers.engines.docker_daemon import Daemon

__all__ = ["labels", "reap", "reap_left"]

OWNER_LABEL = "servingrepo.owner"
"""Host and process id, for people."""
PROCESS_LABEL = "servingrepo.process"
TXID_LABEL = "servingrepo.txid"
EXPIRES_LABEL = "servingrepo.expires"
_EXPIRES_MARGIN = 300.0
_ALREADY_GONE = (404, 409)  # 409: the removal is in progress
_STATE, _START = 0, 19
"""Fields of /proc/PID/stat after the name (proc(5) counts them from 3)."""


def labels(*, txid: str, deadline: Deadline) -> dict[str, str]:
    """Return the labels of a container that this process starts now."""
    return {
        OWNER_LABEL: f"{os.uname().nodename}:{os.getpid()}",
        PROCESS_LABEL: _process(os.getpid()),
        TXID_LABEL: txid,
        EXPIRES_LABEL: str(int(time.time() + deadline.left + _EXPIRES_MARGIN)),
    }


def reap(txids: frozenset[str], *, deadline: Deadline) -> tuple[str, ...]:
    """Remove the containers of dead commands, by their transactions; return the containers' ids.

    Raises:
        EngineUnavailable: There is no daemon, or it refuses.
        ServerTimeout: The daemon is silent.
    """
    with connect(deadline=deadline) as daemon:
        daemon.allow(deadline.left)
        found = [one for one in _ours(daemon) if one["Labels"].get(TXID_LABEL) in txids]
        return tuple(_remove(daemon, one) for one in found)


def reap_left(daemon: Daemon) -> None:
    """Remove containers whose command on this machine is dead, or that have expired.

    If that fails for a container, the next call tries again.
    """
    from docker.errors import APIError

    for one in _ours(daemon):
        if _is_left(one["Labels"]):
            with suppress(APIError):
                _remove(daemon, one)


def _is_left(found: dict[str, str]) -> bool:
    try:
        if int(found.get(EXPIRES_LABEL, "")) < time.time():
            return True
    except ValueError:
        return False  # not a label of ours
    process = found.get(PROCESS_LABEL, "")
    here, _, pid_and_start = process.rpartition("//")
    if here != _place():
        return False  # of another machine, another container, or before a restart: it will expire
    return process != _process(int(pid_and_start.partition("/")[0] or 0))


def _process(pid: int) -> str:
    """Return a name for a process that no other process ever has; empty if it is dead.

    Process ids are reused, so the name contains the start time, the PID namespace and the boot.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    return f"{_place()}//{pid}/{fields[_START]}" if fields[_STATE] != "Z" else ""


def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _ours(daemon: Daemon) -> list[dict[str, Any]]:
    return list(daemon.client.api.containers(all=True, filters={"label": OWNER_LABEL}))


def _remove(daemon: Daemon, found: dict[str, Any]) -> str:
    """Remove a container, unless it is gone already."""
    from docker.errors import APIError

    try:
        daemon.client.api.remove_container(found["Id"], force=True, v=True)
    except APIError as error:
        if error.status_code not in _ALREADY_GONE:
            raise
    return str(found["Id"])
