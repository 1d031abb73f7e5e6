from __future__ import annotations

from servingrepo.embedded.states import Event, ServableId, State, StateMonitor
from servingrepo.embedded.status import OK, Code, Status


def event(version: int, state: State, health: Status = OK, name: str = "m") -> Event:
    return Event(ServableId(name, version), state, health)


def test_monitor_forgets_nothing_and_lists_descending() -> None:
    monitor = StateMonitor()
    for one in (event(1, State.AVAILABLE), event(10, State.END), event(2, State.LOADING)):
        monitor.handle(one)
    assert [one.id.version for one in monitor.versions("m")] == [10, 2, 1]
    monitor.handle(event(10, State.START))
    ten = monitor.version("m", 10)
    assert ten is not None
    assert ten.state is State.START
    assert monitor.version("m", 3) is None
    assert monitor.versions("other") == ()


def test_waiter_is_set_by_the_first_decided_version() -> None:
    monitor = StateMonitor()
    waiter = monitor.waiter(["m"])
    for state in (State.START, State.LOADING, State.UNLOADING):
        monitor.handle(event(2, state))
        assert not waiter.done
    monitor.handle(event(1, State.AVAILABLE))
    assert waiter.done
    monitor.handle(event(2, State.END, Status(Code.DATA_LOSS, "x")))
    assert waiter.outcome("model(s)").ok


def test_waiter_takes_the_highest_of_those_decided_already() -> None:
    monitor = StateMonitor()
    monitor.handle(event(1, State.AVAILABLE))
    monitor.handle(event(2, State.END, Status(Code.DATA_LOSS, "x")))
    assert monitor.waiter(["m"]).outcome("model(s)").message == (
        "1 model(s) did not become available: {{{name: m version: 2} due to error: DATA_LOSS: x}, }"
    )


def test_waiter_waits_for_each_of_its_models() -> None:
    monitor = StateMonitor()
    assert monitor.waiter([]).done
    both = monitor.waiter(["m", "n"])
    monitor.handle(event(1, State.AVAILABLE))
    assert not both.done
    monitor.handle(event(1, State.AVAILABLE, name="n"))
    assert both.done
