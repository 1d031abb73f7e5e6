"""A point in time by which something must happen, and pauses until then."""

from __future__ import annotations

import math
import threading
import time

import msgspec

from servingrepo.errors import SettingsError


class Deadline(msgspec.Struct, frozen=True):
    """A moment on the monotonic clock; `seconds` is the whole time, for messages.

    With a `halt`, any thread that shares it can end it early.
    """

    seconds: float
    moment: float
    halt: threading.Event | None = None

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline in so many seconds.

        Raises:
            SettingsError: The number is not finite.
        """
        if not math.isfinite(seconds):
            raise SettingsError(f"{seconds} is no time to wait", hint="give a number of seconds")
        return cls(seconds=seconds, moment=time.monotonic() + seconds)

    def stoppable(self) -> Deadline:
        """Return the same deadline, which `stop` can end early."""
        return msgspec.structs.replace(self, halt=threading.Event())

    def stop(self) -> None:
        """End it now, if it is stoppable."""
        if self.halt is not None:
            self.halt.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` ended it early."""
        return self.halt is not None and self.halt.is_set()

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return 0.0 if self.stopped else max(0.0, self.moment - time.monotonic())

    @property
    def over(self) -> float:
        """Seconds since the moment, never negative."""
        return max(0.0, time.monotonic() - self.moment)

    @property
    def passed(self) -> bool:
        """Whether the moment has come, or `stop` ended it."""
        return self.stopped or time.monotonic() >= self.moment

    def at_most(self, seconds: float) -> float:
        """Return the time left, but not more than `seconds`: the timeout of one step."""
        return min(self.left, seconds)

    def pause(self, seconds: float) -> None:
        """Sleep, but not past the deadline."""
        if self.halt is not None:
            self.halt.wait(self.at_most(seconds))
        else:
            time.sleep(self.at_most(seconds))
