"""Keeps TensorFlow's chatter out of the server's own log, and shows it when something failed.

TensorFlow's C++ code writes to file descriptor 2, so that is pointed to a file; the server's own lines go to
what it was before. The temporary file has no name: nothing is left behind, however the process ends.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from typing import TextIO

__all__ = ["TensorFlowLog", "redirect"]

LAST_LINES = 12
LAST_BYTES = 16_384
STDERR = 2


class TensorFlowLog:
    """The file that TensorFlow writes to; `last_lines` gives what is new since the last call."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._shown = 0

    def last_lines(self) -> list[str]:
        """Return at most the last dozen lines that were not returned before."""
        with self._lock:
            end = os.fstat(self._descriptor).st_size
            start = max(self._shown, end - LAST_BYTES)
            data = os.pread(self._descriptor, end - start, start)
            self._shown = end
        return data.decode(errors="replace").splitlines()[-LAST_LINES:]


def redirect(path: str) -> tuple[TensorFlowLog, TextIO]:
    """Point file descriptor 2 to `path`, or to a temporary file if it is empty.

    Returns:
        The log, and a text stream to where the descriptor pointed before; `sys.stderr` is that one now too.

    Raises:
        OSError: The file cannot be written.
    """
    if path:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
    else:
        with tempfile.TemporaryFile(prefix="servingrepo-tensorflow-", mode="a+b") as file:
            descriptor = os.dup(file.fileno())
    sys.stderr.flush()
    own = os.fdopen(os.dup(STDERR), "w", buffering=1, errors="backslashreplace")
    os.dup2(descriptor, STDERR)
    sys.stderr = own
    return TensorFlowLog(descriptor), own
