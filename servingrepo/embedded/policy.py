"""The choice of the next version to load or unload: AvailabilityPreservingPolicy as a function.

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
    """A managed version, for the policy."""

    id: ServableId
    phase: Phase
    aspired: bool


class Kind(Enum):
    """The kinds of actions."""

    UNLOAD = "unload"
    LOAD = "load"


class Action(msgspec.Struct, frozen=True):
    """A decision about a version."""

    kind: Kind
    id: ServableId


def next_action(versions: Sequence[Snapshot]) -> Action | None:
    """Decide for one model.

    Unload the lowest ready version that is not aspired, if nothing is aspired, an aspired version is ready, or
    several ready versions are not aspired. Else load the highest aspired version that has not started. So a switch
    loads before it unloads, but with `latest N > 1` a version goes first. A failed aspired version never replaces
    the old one.
    """
    ready = [one for one in versions if one.phase is Phase.READY]
    unaspired = [one.id for one in ready if not one.aspired]
    has_aspired = any(one.aspired for one in versions)
    has_aspired_ready = any(one.aspired for one in ready)
    if unaspired and (not has_aspired or has_aspired_ready or len(unaspired) > 1):
        return Action(Kind.UNLOAD, min(unaspired))
    fresh = [one.id for one in versions if one.aspired and one.phase is Phase.NEW]
    return Action(Kind.LOAD, max(fresh)) if fresh else None
