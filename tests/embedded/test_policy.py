from __future__ import annotations

import pytest

from servingrepo.embedded.policy import Action, Kind, Phase, Snapshot, next_action
from servingrepo.embedded.states import ServableId

READY, NEW, ERROR, LOADING = Phase.READY, Phase.NEW, Phase.ERROR, Phase.LOADING


def load(version: int) -> Action:
    return Action(Kind.LOAD, ServableId("m", version))


def unload(version: int) -> Action:
    return Action(Kind.UNLOAD, ServableId("m", version))


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([(1, NEW, True)], load(1), id="first"),
        pytest.param([(1, NEW, True), (3, NEW, True), (2, NEW, True)], load(3), id="highest first"),
        pytest.param([(1, READY, False), (2, NEW, True)], load(2), id="load before unload"),
        pytest.param([(5, READY, False), (4, NEW, True)], load(4), id="down: load before unload"),
        pytest.param([(1, READY, False), (2, READY, True)], unload(1), id="then unload"),
        pytest.param([(1, READY, False), (2, LOADING, True)], None, id="wait for the load"),
        pytest.param(
            [(1, READY, False), (2, ERROR, True)], None, id="a failed one replaces nothing"
        ),
        pytest.param([(1, READY, False)], unload(1), id="nothing aspired"),
        pytest.param(
            [(1, READY, False), (2, READY, True), (3, NEW, True)],
            unload(1),
            id="latest 2: unload before load",
        ),
        pytest.param(
            [(1, READY, False), (2, READY, False), (3, NEW, True)],
            unload(1),
            id="two old ones: the lower goes first",
        ),
        pytest.param([(1, NEW, False), (2, READY, True)], None, id="unaspired, never loaded"),
    ],
)
def test_next_action(versions: list[tuple[int, Phase, bool]], expected: Action | None) -> None:
    snapshots = [Snapshot(ServableId("m", n), phase, aspired) for n, phase, aspired in versions]
    assert next_action(snapshots) == expected
