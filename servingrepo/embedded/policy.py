"""Which version to load or unload next: TensorFlow Serving's AvailabilityPreservingPolicy, as a function.

After core/availability_preserving_policy.cc. No flag of the real server selects another policy.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from servingrepo.embedded.states import ServableId

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Action", "Kind", "Phase", "Snapshot", "next_action"]


class Phase(Enum):
    """Where a managed version is inside the manager (LoaderHarness::State)."""

    NEW = "new"
    LOAD_REQUESTED = "load-requested"
    LOAD_APPROVED = "load-approved"
    LOADING = "loading"
    READY = "ready"
    UNLOAD_REQUESTED = "unload-requested"
    QUIESCING = "quiescing"
    QUIESCED = "quiesced"
    UNLOADING = "unloading"
    DISABLED = "disabled"
    ERROR = "error"


class Snapshot(msgspec.Struct, frozen=True):
    """One managed version as the policy sees it."""

    id: ServableId
    phase: Phase
    aspired: bool


class Kind(Enum):
    """What to do with a version."""

    UNLOAD = "unload"
    LOAD = "load"


class Action(msgspec.Struct, frozen=True):
    """One decision."""

    kind: Kind
    id: ServableId


def next_action(versions: Sequence[Snapshot]) -> Action | None:
    """Decide for one model.

    With nothing aspired, or an aspired version ready, or more than one unaspired version ready, the lowest
    unaspired ready one goes; else the highest aspired version that was not started is loaded. So a switch
    loads before it unloads, except that with `latest N > 1` one goes first; and nothing ever replaces the
    old version while the aspired one has failed.
    """
    ready = [one for one in versions if one.phase is Phase.READY]
    unaspired = [one.id for one in ready if not one.aspired]
    has_aspired = any(one.aspired for one in versions)
    has_aspired_ready = any(one.aspired for one in ready)
    if unaspired and (not has_aspired or has_aspired_ready or len(unaspired) > 1):
        return Action(Kind.UNLOAD, min(unaspired))
    fresh = [one.id for one in versions if one.aspired and one.phase is Phase.NEW]
    return Action(Kind.LOAD, max(fresh)) if fresh else None
