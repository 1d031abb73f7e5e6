"""The map of loaded versions, which requests hold.

After util/fast_read_dynamic_ptr.h and BasicManager::ServingMap: a request holds the map in which it found its
version, and an update returns only when no request holds the old map. So a long request keeps a new version in
LOADING and a removed version in UNLOADING.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from servingrepo.embedded.states import ServableId

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Handle", "ServingMap"]


class _Map:
    """One generation of the map: the ready versions, and the number of requests that hold it."""

    def __init__(self, ready: Mapping[ServableId, Any]) -> None:
        self.ready = dict(ready)
        self.latest: dict[str, ServableId] = {}
        for one in sorted(self.ready):
            self.latest[one.name] = one
        self.readers = 0


class Handle:
    """A context manager that keeps a loaded version from unloading."""

    def __init__(self, owner: ServingMap, generation: _Map, one: ServableId) -> None:
        self.id = one
        self.servable: Any = generation.ready[one]
        self._owner = owner
        self._generation = generation

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # First the servable, because it may be unloaded as soon as the count drops.
        self.servable = None
        self._owner._release(self._generation)  # noqa: SLF001 - both are parts of one mechanism


class ServingMap:
    """The versions that answer requests now."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._current = _Map({})

    def lookup(self, name: str, version: int | None) -> Handle | None:
        """Return a handle of a version, by default the highest; None if it is not loaded."""
        with self._changed:
            current = self._current
            one = current.latest.get(name) if version is None else ServableId(name, version)
            if one is None or one not in current.ready:
                return None
            current.readers += 1
            return Handle(self, current, one)

    def update(self, ready: Mapping[ServableId, Any]) -> None:
        """Replace the map, then block until no request holds the old one."""
        with self._changed:
            old, self._current = self._current, _Map(ready)
            self._changed.wait_for(lambda: old.readers == 0)

    def _release(self, generation: _Map) -> None:
        with self._changed:
            generation.readers -= 1
            if generation.readers == 0:
                self._changed.notify_all()
