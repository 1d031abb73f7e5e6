"""Ends the server with the process that started it, however that one ends.

PR_SET_PDEATHSIG would be simpler but is about the *thread* that started the child (prctl(2)): a server that
a worker thread started would be killed when that thread is done. A pidfd is about the process, and cannot be
fooled by a number that is used again.
"""

from __future__ import annotations

import os
import select
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["watch"]

POLL_SECONDS = 0.2


def watch(pid: int, ended: Callable[[], None]) -> None:
    """Call `ended` from a thread as soon as process `pid` has ended, at once if it has already."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        ended()
        return
    except (AttributeError, OSError):
        # No pidfd before Linux 5.3 and on other systems.
        wait = partial(_wait_by_polling, pid, ended)
    else:
        wait = partial(_wait_by_descriptor, descriptor, ended)
    threading.Thread(target=wait, name="parent", daemon=True).start()


def _wait_by_descriptor(descriptor: int, ended: Callable[[], None]) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    ended()


def _wait_by_polling(pid: int, ended: Callable[[], None]) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        except PermissionError:
            pass
        time.sleep(POLL_SECONDS)
    ended()
