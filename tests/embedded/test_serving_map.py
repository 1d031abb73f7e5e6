from __future__ import annotations

import threading

from servingrepo.embedded.serving_map import ServingMap
from servingrepo.embedded.states import ServableId

ONE, TWO, OTHER = ServableId("m", 1), ServableId("m", 2), ServableId("n", 7)


def test_lookup_finds_a_version_the_highest_or_nothing() -> None:
    serving = ServingMap()
    assert serving.lookup("m", None) is None
    serving.update({TWO: "two", ONE: "one", OTHER: "other"})
    for version, expected in ((None, TWO), (1, ONE), (2, TWO)):
        handle = serving.lookup("m", version)
        assert handle is not None
        with handle:
            assert handle.id == expected
    assert serving.lookup("m", 7) is None


def test_update_waits_for_requests_on_the_old_map() -> None:
    serving = ServingMap()
    serving.update({ONE: "one", OTHER: "other"})
    # A request of *any* model holds up every change.
    handle = serving.lookup("n", None)
    assert handle is not None
    updated = threading.Event()

    def update() -> None:
        serving.update({TWO: "two"})
        updated.set()

    thread = threading.Thread(target=update)
    thread.start()
    with handle:
        assert not updated.wait(0.2)
        assert handle.servable == "other"
        new = serving.lookup("m", None)
        assert new is not None
        with new:
            assert new.servable == "two"
        assert serving.lookup("n", None) is None
        assert not updated.is_set()
    assert updated.wait(5)
    thread.join()
