"""Another user of this machine, to whom nothing is open that is not open to everybody.

A script runs as root until it calls `become_nobody()`: only root may be able to read our interpreter's modules.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NOBODY = 65534
_SECONDS = 120
_LISTEN = "0A"
"""A socket's state in /proc/net/tcp."""


def start_neighbour(
    script: str,
    *arguments: str | Path,
    groups: Sequence[int] = (),
    env: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Run a Python script with a function `become_nobody`."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must not skip: only root can become another user")
        pytest.skip("only root can become another user")
    become = (
        "def become_nobody():\n"
        "    import os\n"
        f"    os.setgroups({list(groups)}); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", become + script, *map(str, arguments)],
        env={**os.environ, "HOME": "/", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def what_a_neighbour_says(
    script: str,
    *arguments: str | Path,
    groups: Sequence[int] = (),
    env: dict[str, str] | None = None,
) -> str:
    """Run such a script to its end; return what it printed."""
    process = start_neighbour(script, *arguments, groups=groups, env=env)
    said, errors = process.communicate(timeout=_SECONDS)
    assert process.returncode == 0, errors
    return said.strip()


def refusal_to_neighbours(path: Path) -> str:
    """Return what another user is told who connects to a socket; empty if that works."""
    return what_a_neighbour_says(
        "import socket, sys\n"
        "become_nobody()\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except OSError as error: print(error.strerror)\n",
        path,
    )


def listening_ports(pid: int) -> set[int]:
    """Return the TCP ports that a process listens on."""
    ours = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it closed that one meanwhile
            ours.add(str(one.readlink()))
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTEN and f"socket:[{inode}]" in ours:
                found.add(int(local.rpartition(":")[2], 16))
    return found


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="srt-open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
