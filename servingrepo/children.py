"""Child processes that end with their parent and run no code of a run."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

__all__ = ["die_with", "environment", "python"]

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, prctl(2)


def python(module: str, *, interpreter: str = sys.executable) -> list[str]:
    """Return the beginning of a command line that runs a module of ours.

    With `-m` alone, Python searches every module in the current directory first, and that may be a run. `-P` turns
    that off. `-I` would also ignore the user's PYTHONPATH.
    """
    return [interpreter, "-P", "-m", module]


def environment() -> dict[str, str]:
    """Return our environment for a child that works in another directory.

    Relative paths in PYTHONPATH become absolute. Empty parts are removed, because they stand for the current
    directory.
    """
    given = {**os.environ}
    if "PYTHONPATH" in given:
        parts = given["PYTHONPATH"].split(os.pathsep)
        given["PYTHONPATH"] = os.pathsep.join(str(Path(one).absolute()) for one in parts if one)
    return given


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies.

    The parent is the thread that started the child (prctl(2)), so that thread must wait for the child.
    """
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
