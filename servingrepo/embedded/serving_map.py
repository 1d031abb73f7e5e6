"""Who answers a request right now, and how long a request may hold that up.

After util/fast_read_dynamic_ptr.h and BasicManager::ServingMap: requests hold the map that they looked into,
and an update returns only when the last of them has let go of the old map. That is why one long request in
flight keeps a new version in LOADING and a removed one in UNLOADING.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from servingrepo.embedded.states import ServableId

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Handle", "ServingMap"]


class _Map:
    """One generation: what is ready, and how many requests look into it."""

    def __init__(self, ready: Mapping[ServableId, Any]) -> None:
        self.ready = dict(ready)
        self.latest: dict[str, ServableId] = {}
        for one in sorted(self.ready):
            self.latest[one.name] = one
        self.readers = 0


class Handle:
    """A loaded version that cannot be unloaded while this is held; a context manager."""

    def __init__(self, owner: ServingMap, generation: _Map, one: ServableId) -> None:
        self.id = one
        self.servable: Any = generation.ready[one]
        self._owner = owner
        self._generation = generation

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The servable goes first: the map may unload it as soon as the count drops.
        self.servable = None
        self._owner._release(self._generation)  # noqa: SLF001 - the two halves of one mechanism


class ServingMap:
    """The versions that answer requests."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._current = _Map({})

    def lookup(self, name: str, version: int | None) -> Handle | None:
        """Return a handle of one version, or of the highest one, or None if it is not loaded."""
        with self._changed:
            current = self._current
            one = current.latest.get(name) if version is None else ServableId(name, version)
            if one is None or one not in current.ready:
                return None
            current.readers += 1
            return Handle(self, current, one)

    def update(self, ready: Mapping[ServableId, Any]) -> None:
        """Let requests from now on see `ready`, then block until none holds the map before it."""
        with self._changed:
            old, self._current = self._current, _Map(ready)
            self._changed.wait_for(lambda: old.readers == 0)

    def _release(self, generation: _Map) -> None:
        with self._changed:
            generation.readers -= 1
            if generation.readers == 0:
                self._changed.notify_all()
