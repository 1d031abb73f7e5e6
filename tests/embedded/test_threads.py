"""Concurrency: loads in threads, requests in flight, cancelled loads."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from servingrepo.embedded.harness import Retries
from servingrepo.embedded.manager import Manager
from servingrepo.embedded.states import Event, EventBus, ServableId
from servingrepo.embedded.status import OK, Code, Status
from servingrepo.embedded.versions import VersionPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.embedded.conftest import Bench


class FakeSlowLoader:
    """Loads that end when the test says so, with the outcome that it says."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.outcome: str | Status = "loaded"
        self.unloaded: list[str] = []

    def reserve(self, _: VersionPath) -> Status:
        return OK

    def load(self, _: VersionPath) -> str | Status:
        self.begun.set()
        assert self.go_on.wait(10)
        return self.outcome

    def unload(self, servable: str) -> None:
        self.unloaded.append(servable)


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def one(number: int) -> VersionPath:
    return VersionPath(ServableId("m", number), f"/m/{number}")


def make(loader: FakeSlowLoader, retries: int = 0) -> tuple[Manager, list[Event]]:
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)
    manager = Manager(loader, bus, retries=Retries(retries, 0.0, time.sleep), load_threads=1)
    return manager, events


def test_load_that_ends_after_it_was_unaspired_is_cancelled() -> None:
    loader = FakeSlowLoader()
    manager, events = make(loader)
    manager.aspire("m", [one(1)])
    manager.tick()
    assert loader.begun.wait(10)
    manager.aspire("m", [])
    manager.tick()
    loader.go_on.set()
    manager.set_load_threads(0)
    assert [event.state.name for event in events] == ["START", "LOADING", "END"]
    assert events[-1].health == Status(Code.CANCELLED, "Loading of servable cancelled")
    assert loader.unloaded == ["loaded"]
    assert manager.lookup("m") is None


def test_retries_of_an_unaspired_version_end_in_error() -> None:
    loader = FakeSlowLoader()
    loader.outcome = Status(Code.NOT_FOUND, "no file")
    manager, events = make(loader, retries=1_000_000)
    manager.aspire("m", [one(1)])
    manager.tick()
    assert loader.begun.wait(10)
    manager.aspire("m", [])
    manager.tick()
    loader.go_on.set()
    manager.set_load_threads(0)
    assert events[-1].health == Status(Code.NOT_FOUND, "no file")


def test_new_number_of_threads_waits_for_loads() -> None:
    loader = FakeSlowLoader()
    manager, _ = make(loader)
    manager.aspire("m", [one(1)])
    manager.tick()
    assert loader.begun.wait(10)
    changed = threading.Thread(target=manager.set_load_threads, args=(0,))
    changed.start()
    changed.join(0.2)
    assert changed.is_alive()
    loader.go_on.set()
    changed.join(10)
    assert not changed.is_alive()
    assert manager.lookup("m") is not None


def test_request_in_flight_keeps_a_removed_version_unloading(bench: Bench) -> None:
    bench.put("m/1")
    bench.put("n/1")
    bench.reload("m", "n")
    found = bench.core.find("m")
    assert not isinstance(found, Status)
    assert bench.reload("n").ok
    thread = threading.Thread(target=bench.settle)
    with found:
        thread.start()
        eventually(lambda: bench.states("m") == {1: "UNLOADING"})
        assert bench.answers("m") is None
        assert bench.answers("n") == 1
        assert not bench.runtime.sessions[0].closed
    thread.join(10)
    assert bench.states("m") == {1: "END"}
    assert bench.runtime.sessions[0].closed


def test_request_in_flight_keeps_new_version_in_loading(bench: Bench) -> None:
    bench.put("m/1")
    bench.reload("m")
    found = bench.core.find("m")
    assert not isinstance(found, Status)
    bench.put("m/2")
    thread = threading.Thread(target=bench.turn)
    with found:
        thread.start()
        eventually(lambda: bench.answers("m") == 2)
        assert bench.states("m") == {2: "LOADING", 1: "AVAILABLE"}
    thread.join(10)
    assert bench.states("m") == {2: "AVAILABLE", 1: "END"}


def test_reloads_queue_in_order_behind_a_hanging_reload(
    bench: Bench,
) -> None:
    bench.put("a/1")
    bench.put("c/1")
    bench.reload("a")
    stuck = threading.Event()
    outcomes: list[Status] = []

    def stay() -> None:
        stuck.set()
        eventually((bench.base / "b").exists)

    bench.before_wait = stay
    first = threading.Thread(target=lambda: outcomes.append(bench.reload("a", "b")))
    first.start()
    assert stuck.wait(10)
    second = threading.Thread(target=lambda: outcomes.append(bench.reload("a", "c")))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    assert bench.answers("a") == 1
    bench.put("b/1")
    first.join(10)
    second.join(10)
    assert [outcome.ok for outcome in outcomes] == [True, True]
    bench.turn()
    assert bench.answers("c") == 1
    assert bench.answers("b") is None
