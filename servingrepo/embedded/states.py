"""The states of all versions: events, the monitor that remembers them, and waiters.

After core/servable_state_monitor.cc and util/event_bus.h: the monitor forgets nothing, and a version that loads again
overwrites its entry. Of a model's versions that are AVAILABLE or END, a waiter sees the highest.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from servingrepo.embedded.status import OK, Code, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Event", "EventBus", "ServableId", "State", "StateMonitor", "Waiter"]


class State(IntEnum):
    """ModelVersionStatus.State of get_model_status.proto."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class ServableId(msgspec.Struct, frozen=True, order=True):
    """One version of one model."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"


class Event(msgspec.Struct, frozen=True):
    """A version's new state; `health` is not OK only if the state is END after a failure."""

    id: ServableId
    state: State
    health: Status = OK


class EventBus:
    """Delivers each event to all subscribers, one event at a time, before `publish` returns."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Deliver every event from now on to `subscriber`, which must not block."""
        with self._lock:
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Deliver no more events to `subscriber`."""
        with self._lock:
            self._subscribers.remove(subscriber)

    def publish(self, event: Event) -> None:
        """Deliver `event`."""
        with self._lock:
            for subscriber in list(self._subscribers):
                subscriber(event)


class Waiter:
    """It is set once each of its models has a version that is AVAILABLE or END: those are `reached`."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.reached: dict[ServableId, Event] = {}
        self._set = threading.Event()

    @property
    def done(self) -> bool:
        """Whether it is set."""
        return self._set.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set, at most `timeout` seconds; return whether it is."""
        return self._set.wait(timeout)

    def settle(self, reached: Iterable[Event]) -> None:
        """Set it, with the events of the versions."""
        self.reached = {event.id: event for event in reached}
        self._set.set()

    def outcome(self, what: str) -> Status:
        """Return OK, or the error that names the models whose version failed.

        Args:
            what: `servable(s)` at start (load_servables_fast.cc), `model(s)` on reload (server_core.cc).
        """
        failed = [
            event for _, event in sorted(self.reached.items()) if event.state is not State.AVAILABLE
        ]
        if not failed:
            return OK
        parts = (
            f"{{{event.id}" + ("" if event.health.ok else f" due to error: {event.health}") + "}, "
            for event in failed
        )
        text = f"{len(failed)} {what} did not become available: {{{''.join(parts)}}}"
        return Status(Code.UNKNOWN, text)


class StateMonitor:
    """Remembers the latest event of every version."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, dict[int, Event]] = {}
        self._waiters: list[Waiter] = []

    def handle(self, event: Event) -> None:
        """Store an event. It is a subscriber of an EventBus."""
        with self._lock:
            self._states.setdefault(event.id.name, {})[event.id.version] = event
            self._waiters = [waiter for waiter in self._waiters if not self._settled(waiter)]

    def version(self, name: str, version: int) -> Event | None:
        """Return the latest event of a version, or None."""
        with self._lock:
            return self._states.get(name, {}).get(version)

    def versions(self, name: str) -> tuple[Event, ...]:
        """Return the latest events of all versions of a model, highest number first."""
        with self._lock:
            return _descending(self._states.get(name, {}))

    def waiter(self, names: Iterable[str]) -> Waiter:
        """Return a waiter for these models. It may be set already."""
        waiter = Waiter(names)
        with self._lock:
            if not self._settled(waiter):
                self._waiters.append(waiter)
        return waiter

    def _settled(self, waiter: Waiter) -> bool:
        decided = []
        for name in waiter.names:
            event = next(
                (
                    event
                    for event in _descending(self._states.get(name, {}))
                    if event.state in (State.AVAILABLE, State.END)
                ),
                None,
            )
            if event is None:
                return False
            decided.append(event)
        waiter.settle(decided)
        return True


def _descending(versions: Mapping[int, Event]) -> tuple[Event, ...]:
    return tuple(versions[number] for number in sorted(versions, reverse=True))
