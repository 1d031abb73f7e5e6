"""The manager loads and unloads versions until the aspired ones are loaded, one decision per tick.

After core/aspired_versions_manager.cc and core/basic_manager.cc (2.19). Their traps follow from three rules. An
aspired version that failed stays failed. A request for a version that is still unloading waits until that is gone.
And without load threads, a load runs inside the tick, with its retries and their sleeps.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from servingrepo.embedded.harness import Harness, Loader, Retries
from servingrepo.embedded.policy import Action, Kind, Phase, Snapshot, next_action
from servingrepo.embedded.serving_map import Handle, ServingMap
from servingrepo.embedded.states import Event, EventBus, ServableId, State
from servingrepo.embedded.status import OK, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servingrepo.embedded.versions import VersionPath

__all__ = ["Manager"]

logger = logging.getLogger(__name__)

_RACE_SECONDS = 10.0

REMOVABLE = (Phase.NEW, Phase.DISABLED, Phase.ERROR)


class _Threads:
    """Runs loads or unloads, in a pool, or with 0 threads in the caller."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(number) if number > 0 else None

    def schedule(self, act: Callable[[], None]) -> None:
        with self._lock:
            pool = self._pool
            if pool is not None:
                pool.submit(_logged, act)
                return
        act()

    def resize(self, number: int) -> None:
        """Change the number, after all scheduled work has ended. No new work begins meanwhile."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=True)
            self.number = number
            self._pool = ThreadPoolExecutor(number) if number > 0 else None


class Manager:
    """The server's versions. One thread calls `tick`; any thread may call the rest."""

    def __init__(
        self,
        loader: Loader,
        bus: EventBus,
        *,
        retries: Retries,
        load_threads: int = 0,
        unload_threads: int = 0,
        stale_available: bool = False,
    ) -> None:
        self._stale_available = stale_available
        self._loader = loader
        self._bus = bus
        self._retries = retries
        self._pending_lock = threading.Lock()
        self._pending: dict[str, tuple[VersionPath, ...]] = {}
        # Held as long as in the real server: while it reserves resources, with retries, and while an update of the
        # serving map waits for requests. Ticks, loads and unloads wait meanwhile.
        self._lock = threading.Lock()
        self._managed: dict[str, dict[int, Harness]] = {}
        self._serving = ServingMap()
        self._loads = _Threads(load_threads)
        self._unloads = _Threads(unload_threads)
        self._put_off: set[tuple[str, tuple[int, ...]]] = set()

    @property
    def load_threads(self) -> int:
        """The number of loads at the same time; 0 means inside the tick."""
        return self._loads.number

    def set_load_threads(self, number: int) -> None:
        """Change it, after all scheduled loads and their retries have ended."""
        self._loads.resize(number)

    def lookup(self, name: str, version: int | None = None) -> Handle | None:
        """Return a handle of a loaded version, or None; without a number the highest version."""
        return self._serving.lookup(name, version)

    def aspire(self, name: str, versions: Sequence[VersionPath]) -> None:
        """Set the wanted versions of a model. The next tick uses the latest request only."""
        with self._pending_lock:
            self._pending[name] = tuple(versions)

    def tick(self) -> Action | None:
        """Forget ended versions, read the latest requests, then decide once for all models.

        Returns:
            The decision, None if there is none. Without threads it is carried out already.
        """
        with self._lock:
            self._forget()
        with self._pending_lock, self._lock:
            self._take_in()
        with self._lock:
            action = self._decide()
            if action is None:
                return None
            harness = self._managed[action.id.name][action.id.version]
            load = action.kind is Kind.LOAD
            harness.phase = Phase.LOAD_REQUESTED if load else Phase.UNLOAD_REQUESTED
        if load:
            self._loads.schedule(lambda: self._load(harness))
        else:
            self._unloads.schedule(lambda: self._unload(harness))
        return action

    def _forget(self) -> None:
        for name, versions in list(self._managed.items()):
            for number, harness in list(versions.items()):
                if harness.phase in REMOVABLE and not harness.aspired:
                    del versions[number]
            if not versions:
                del self._managed[name]

    def _take_in(self) -> None:
        for name, versions in sorted(self._pending.items()):
            managed = self._managed.get(name, {})
            again = sorted(
                {one.id.version for one in versions if one.id.version in managed}
                & {number for number, harness in managed.items() if not harness.aspired}
            )
            if again:
                self._explain_put_off(name, tuple(again))
                continue
            del self._pending[name]
            self._put_off = {entry for entry in self._put_off if entry[0] != name}
            self._process(name, versions)

    def _process(self, name: str, versions: Sequence[VersionPath]) -> None:
        managed = self._managed.setdefault(name, {})
        wanted = {one.id.version for one in versions}
        for number, harness in managed.items():
            if number not in wanted:
                harness.aspired = False
                if harness.failure.ok:
                    harness.cancel_retries()
        for one in versions:
            # Two directories with the same number: the first stays (the real server logs an error).
            if one.id.version not in managed:
                managed[one.id.version] = Harness(one)
                self._publish(one.id, State.START)
        if not managed:
            del self._managed[name]

    def _explain_put_off(self, name: str, again: tuple[int, ...]) -> None:
        failed = [h.id.version for h in self._managed[name].values() if not h.failure.ok]
        if failed and (name, again) not in self._put_off:
            self._put_off.add((name, again))
            logger.warning(
                "model %s: version %s is wanted again but has not ended, because version %s failed: nothing "
                "changes until a number appears that is new to the server (as with TensorFlow Serving, "
                "core/aspired_versions_manager.cc)",
                name,
                ", ".join(map(str, again)),
                ", ".join(map(str, sorted(failed))),
            )

    def _decide(self) -> Action | None:
        actions = [
            action
            for _, versions in sorted(self._managed.items())
            if (
                action := next_action(
                    [Snapshot(h.id, h.phase, h.aspired) for h in versions.values()]
                )
            )
        ]
        # Unloads before loads, across models.
        return min(actions, key=lambda action: action.kind is Kind.LOAD, default=None)

    def _load(self, harness: Harness) -> None:
        with self._lock:
            reserved = self._retries.attempt(
                lambda: self._loader.reserve(harness.version),
                wanted=lambda: harness.wanted,
                what=f"reserving resources for version {harness.id.version} of model {harness.id.name}",
            )
            if not reserved.ok:
                text = (
                    "Error while attempting to reserve resources to load servable "
                    f"{harness.id}: {reserved.message}"
                )
                failure = harness.fail(Status(reserved.code, text))
                self._publish(harness.id, State.END, failure)
                return
            harness.phase = Phase.LOAD_APPROVED
        self._publish(harness.id, State.LOADING)
        outcome = harness.load(self._loader, self._retries)
        if not outcome.ok:
            self._publish(harness.id, State.END, outcome)
            return
        with self._lock:
            self._update_serving()
        if self._stale_available and self.load_threads:
            self._let_its_end_come_first(harness)
        self._publish(harness.id, State.AVAILABLE)

    def _let_its_end_come_first(self, harness: Harness) -> None:
        """Play a race of the real server, for tests: the event AVAILABLE of a version comes after its END.

        It happens to a version that waits in LOADING behind a long request, and is unwanted when that ends.
        """
        end = time.monotonic() + _RACE_SECONDS
        while time.monotonic() < end:
            with self._pending_lock:
                taken_in = harness.id.name not in self._pending
            if taken_in and (harness.aspired or harness.ended.is_set()):
                return
            time.sleep(0.01)

    def _unload(self, harness: Harness) -> None:
        with self._lock:
            harness.phase = Phase.QUIESCING
        with self._lock:
            self._publish(harness.id, State.UNLOADING)
            self._update_serving()
            harness.phase = Phase.QUIESCED
        harness.unload(self._loader)
        self._publish(harness.id, State.END)
        harness.ended.set()

    def _update_serving(self) -> None:
        ready = {
            harness.id: harness.servable
            for versions in self._managed.values()
            for harness in versions.values()
            if harness.phase is Phase.READY
        }
        self._serving.update(ready)

    def _publish(self, one: ServableId, state: State, health: Status = OK) -> None:
        self._bus.publish(Event(one, state, health))


def _logged(act: Callable[[], None]) -> None:
    try:
        act()
    except Exception:
        logger.exception("a load or unload broke off: this is a bug of servingrepo")
        raise
