"""A point in time by which something must have happened, and polling until then."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from servingrepo.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock; `seconds` is what was asked for, for messages."""

    seconds: float
    moment: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that many seconds from now.

        Raises:
            SettingsError: It is no finite number.
        """
        if not math.isfinite(seconds):
            raise SettingsError(f"{seconds} is no time to wait", hint="give a number of seconds")
        return cls(seconds=seconds, moment=time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.moment - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the moment has come."""
        return time.monotonic() >= self.moment

    def at_most(self, seconds: float) -> float:
        """Return the time left, but not more than `seconds`: the timeout of one step."""
        return min(self.left, seconds)

    def pause(self, seconds: float) -> None:
        """Sleep, but not past the deadline."""
        time.sleep(self.at_most(seconds))
