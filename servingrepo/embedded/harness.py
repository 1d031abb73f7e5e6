"""One version inside the manager, from NEW to DISABLED or ERROR, and the retries of its load.

After core/loader_harness.cc and util/retrier.cc: it retries every failure, even a permanent one. It stops when the
version is not wanted any more, but never interrupts a sleep or an attempt.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from servingrepo.embedded.policy import Phase
from servingrepo.embedded.status import OK, Code, Status

if TYPE_CHECKING:
    from servingrepo.embedded.versions import VersionPath

__all__ = ["Harness", "Loader", "Retries"]

T = TypeVar("T")
UINT32 = 2**32

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """Loads models for the manager."""

    def reserve(self, version: VersionPath) -> Status:
        """Estimate the memory for the version. After an error it does not load."""

    def load(self, version: VersionPath) -> Any | Status:
        """Load and warm up; return the servable or the error."""

    def unload(self, servable: Any) -> None:
        """Free a servable that `load` returned."""


class Retries(msgspec.Struct, frozen=True):
    """`--max_num_load_retries` and `--load_retry_interval_micros` (in seconds here), and how to sleep."""

    number: int
    interval: float
    sleep: Callable[[float], None]

    def attempt(
        self, act: Callable[[], T | Status], *, wanted: Callable[[], bool], what: str
    ) -> T | Status:
        """Run `act` until it succeeds, fails 1 + `number` times, or is not wanted any more."""
        # The real server counts in uint32: -1 means no retry, other negative numbers no end.
        attempts = max(1, (self.number + 1) % UINT32)
        done = 0
        while True:
            if done and self.interval > 0:
                self.sleep(self.interval)
            result = act()
            done += 1
            if not isinstance(result, Status) or result.ok or done >= attempts or not wanted():
                return result
            logger.warning(
                "%s failed (attempt %d of %d, the next one in %g s): %s",
                what,
                done,
                attempts,
                max(self.interval, 0),
                result,
            )


class Harness:
    """The life of one managed version."""

    def __init__(self, version: VersionPath) -> None:
        self.version = version
        self.id = version.id
        self.aspired = True
        self.phase = Phase.NEW
        self.failure = OK
        self.servable: Any = None
        self.ended = threading.Event()
        self._cancelled = threading.Event()

    @property
    def wanted(self) -> bool:
        """Whether to retry a failed load."""
        return not self._cancelled.is_set()

    def cancel_retries(self) -> None:
        """Stop the retries. A load that succeeds nevertheless is undone."""
        self._cancelled.set()

    def fail(self, failure: Status) -> Status:
        """Go to ERROR, for good."""
        self.phase = Phase.ERROR
        self.failure = failure
        return failure

    def load(self, loader: Loader, retries: Retries) -> Status:
        """Load with retries. The phase is READY, ERROR, or DISABLED after a cancellation."""
        self.phase = Phase.LOADING
        result = retries.attempt(
            lambda: loader.load(self.version),
            wanted=lambda: self.wanted,
            what=f"loading version {self.id.version} of model {self.id.name}",
        )
        if isinstance(result, Status):
            return self.fail(result)
        if not self.wanted:
            self.phase = Phase.UNLOADING
            loader.unload(result)
            self.phase = Phase.DISABLED
            return Status(Code.CANCELLED, "Loading of servable cancelled")
        self.servable = result
        self.phase = Phase.READY
        return OK

    def unload(self, loader: Loader) -> None:
        """Free the servable. No request may hold it any more."""
        self.phase = Phase.UNLOADING
        loader.unload(self.servable)
        self.servable = None
        self.phase = Phase.DISABLED
