"""Child processes: they end with whoever started them, and run nobody's code but ours."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

__all__ = ["die_with", "environment", "python"]

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, prctl(2)


def python(module: str, *, interpreter: str = sys.executable) -> list[str]:
    """Return how a command line begins that runs a module of ours.

    With `-m` alone, Python looks for every module in the current directory first, and that may be a run. `-P` keeps
    it from that. `-I` would forget PYTHONPATH as well, and that is the user's own.
    """
    return [interpreter, "-P", "-m", module]


def environment() -> dict[str, str]:
    """Return our environment for a child that works in another directory.

    What is relative in PYTHONPATH means the same there. An empty part of it, as a colon too many leaves one, stands
    for the current directory: it is left out.
    """
    given = {**os.environ}
    if "PYTHONPATH" in given:
        parts = given["PYTHONPATH"].split(os.pathsep)
        given["PYTHONPATH"] = os.pathsep.join(str(Path(one).absolute()) for one in parts if one)
    return given


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies: nobody else would.

    It is about the thread that started the child (prctl(2)): one that waits for the child, and not a worker's.
    """
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
