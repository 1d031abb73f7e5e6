"""Whether requests fail more often with a new version than without it: the verdict of a stage, from counts alone.

The interval is Miettinen and Nurminen's (Comparative analysis of two rates, Statistics in Medicine 4, 1985): it
holds for rates near zero, where errors of servers are, and for groups of different sizes.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servingrepo.servers.metrics import Requests

__all__ = ["TOLERATED", "lower_bound"]

TOLERATED = 0.01
"""By how much the part of requests that fail may be higher where the new version answers."""

_HALVINGS = 50
"""Each halves the interval in which the bound is looked for, which is 2 wide at first."""


def lower_bound(stage: Requests, control: Requests, *, confidence: float) -> float:
    """Return the lower bound of a one-sided interval of the difference of two error rates, stage less control.

    Args:
        stage: Requests where the new version answers; at least one.
        control: Requests where it does not; at least one.
        confidence: Such as 0.95: that often the true difference is not below the bound.
    """
    wanted = NormalDist().inv_cdf(confidence)
    low, high = -1.0, stage.errors / stage.all - control.errors / control.all
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # The score falls as the difference that is supposed rises.
        low, high = (middle, high) if _score(stage, control, middle) > wanted else (low, middle)
    return low


def _score(stage: Requests, control: Requests, difference: float) -> float:
    """Return how many standard errors lie between what was seen and a difference that is supposed."""
    seen = stage.errors / stage.all - control.errors / control.all
    rate = _likeliest_rate(stage, control, difference)
    other = min(max(rate + difference, 0.0), 1.0)
    size = stage.all + control.all
    variance = (other * (1 - other) / stage.all + rate * (1 - rate) / control.all) * size
    distance = seen - difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance / max(size - 1, 1))


def _likeliest_rate(stage: Requests, control: Requests, difference: float) -> float:
    """Return the control's likeliest error rate if the stage's is higher by `difference`: a root of a cubic."""
    size, errors = stage.all + control.all, stage.errors + control.errors
    square = ((size + control.all) * difference - size - errors) / size
    linear = ((control.all * difference - size - 2 * control.errors) * difference + errors) / size
    constant = control.errors * difference * (1 - difference) / size
    q = square**3 / 27 - linear * square / 6 + constant / 2
    p = math.copysign(math.sqrt(max(square**2 / 9 - linear / 3, 0.0)), q)
    angle = (math.pi + math.acos(min(max(q / p**3, -1.0), 1.0))) / 3 if p else math.pi / 2
    return min(max(2 * p * math.cos(angle) - square / 3, 0.0, -difference), 1.0, 1.0 - difference)
