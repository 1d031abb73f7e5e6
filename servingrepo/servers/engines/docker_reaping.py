"""Containers that outlived their commands: how ours are marked, and how what is left of them is found.

Every container carries the transaction that it is for, who started it, and a time after which nobody can want
it. A command that was killed cannot clean up; the next one that uses Docker does, and `recover`.
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

__all__ = ["OWNER_LABEL", "TXID_LABEL", "labels", "reap", "reap_left"]

OWNER_LABEL = "servingrepo.owner"
"""Host and process id, for people."""

PROCESS_LABEL = "servingrepo.process"
TXID_LABEL = "servingrepo.txid"
EXPIRES_LABEL = "servingrepo.expires"
_EXPIRES_MARGIN = 300.0
_ALREADY_GONE = (404, 409)  # 409: the removal is in progress
_STATE, _START = 0, 19
"""Fields of /proc/PID/stat behind the name (proc(5) counts them from 3)."""


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
        EngineUnavailable, ServerTimeout: The daemon is away, refuses, or is silent.
    """
    with connect(deadline=deadline) as daemon:
        daemon.allow(deadline.left)
        found = [one for one in _ours(daemon) if one["Labels"].get(TXID_LABEL) in txids]
        return tuple(_remove(daemon, one) for one in found)


def reap_left(daemon: Daemon) -> None:
    """Remove containers whose command on this machine is dead, or whose time is over.

    One that cannot be removed is no reason not to go on: it is found again the next time.
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
        return False  # another machine's, another container's, or of before a restart: its time will end
    return process != _process(int(pid_and_start.partition("/")[0] or 0))


def _process(pid: int) -> str:
    """Name a process so that no other ever has the same name; empty if it is dead.

    Ids are used again, so the start time is part of it; they count per PID namespace and per boot.
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
    found: list[dict[str, Any]] = daemon.client.api.containers(
        all=True, filters={"label": OWNER_LABEL}
    )
    return found


def _remove(daemon: Daemon, found: dict[str, Any]) -> str:
    """Remove one container; that somebody else was faster is as good."""
    from docker.errors import APIError

    try:
        daemon.client.api.remove_container(found["Id"], force=True, v=True)
    except APIError as error:
        if error.status_code not in _ALREADY_GONE:
            raise
    return str(found["Id"])
