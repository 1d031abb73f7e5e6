"""Child processes that must not outlive whoever started them."""

from __future__ import annotations

import ctypes
import os
import signal

__all__ = ["die_with"]

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, prctl(2)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies: nobody else would."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
