from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.repository.verification import Round, verify_round
from tests.support import command

if TYPE_CHECKING:
    from collections.abc import Callable

    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release

DATA = "variables/variables.data-00000-of-00001"


@pytest.fixture
def sitting(repo: OpenRepository, release: Release) -> Callable[..., Round]:
    """Three versions, and a sitting that has time for so many of them."""
    for slope in (1.0, 2.0, 3.0):
        release(slope)

    def sit(count: int, *, quick: bool = False, deep: bool = False) -> Round:
        ticks = iter(range(1000))
        return verify_round(
            repo.value,
            [("m", 1), ("m", 2), ("m", 3)],
            seconds=count,
            clock=lambda: next(ticks),
            quick=quick,
            deep=deep,
        )

    return sit


def subjects(done: Round) -> list[str]:
    return [one.subject for one in done.verified]


def test_a_round_goes_on_where_it_stopped_and_then_starts_again(
    sitting: Callable[..., Round],
) -> None:
    first = sitting(2)
    assert (subjects(first), first.before, first.left) == (["m@1", "m@2"], (), ("m@3",))
    second = sitting(2)
    assert (subjects(second), second.before, second.left) == (["m@3"], ("m@1", "m@2"), ())
    assert subjects(sitting(9)) == ["m@1", "m@2", "m@3"]


def test_a_round_without_any_time_does_one_version(sitting: Callable[..., Round]) -> None:
    assert [subjects(sitting(0)) for _ in range(4)] == [["m@1"], ["m@2"], ["m@3"], ["m@1"]]


def test_a_damaged_version_is_told_by_every_sitting(
    sitting: Callable[..., Round], repo: OpenRepository
) -> None:
    data = repo.value.layout.version("m", 1) / DATA
    data.write_bytes(bytes(8))
    assert not sitting(2).verified[0].ok
    again = sitting(2)
    assert (subjects(again), again.before) == (["m@3", "m@1"], ("m@2",))
    assert not again.verified[1].ok


@pytest.mark.parametrize("how", ["bytes", "no record", "no directory"])
def test_a_damaged_version_keeps_no_round_from_its_end(
    how: str, sitting: Callable[..., Round], repo: OpenRepository
) -> None:
    version = repo.value.layout.version("m", 1)
    if how == "bytes":
        (version / DATA).write_bytes(bytes(8))
    elif how == "no record":
        repo.value.layout.record("m", 1).write_bytes(b"{")
    else:
        shutil.rmtree(version)
    sittings = [sitting(0) for _ in range(4)]
    assert [subjects(one) for one in sittings] == [["m@1"], ["m@2"], ["m@3"], ["m@1"]]
    assert [one.damaged for one in sittings] == [(), ("m@1",), ("m@1",), ()]
    assert [one.left for one in sittings[:3]] == [("m@2", "m@3"), ("m@3",), ()]
    assert not sittings[3].verified[0].ok


def test_a_call_without_time_for_a_damaged_version_fails_and_names_it(
    sitting: Callable[..., Round], repo: OpenRepository
) -> None:
    sitting(0)
    (repo.value.layout.version("m", 1) / DATA).write_bytes(bytes(8))
    for _ in range(3):
        sitting(0)
    done = command("--root", repo.root, "verify", "--max-seconds", "0", "--json")
    assert (done.code, done.json["error"]["problems"]) == (35, ["m@1"])
    assert done.json["error"]["details"]["verified"]["verified"][0]["subject"] == "m@2"


def test_a_quick_round_and_a_full_one_are_not_mixed(sitting: Callable[..., Round]) -> None:
    sitting(1, quick=True)
    assert subjects(sitting(1)) == ["m@1"]


def test_a_deep_round_and_a_full_one_are_not_mixed(sitting: Callable[..., Round]) -> None:
    sitting(1)
    assert subjects(sitting(1, deep=True)) == ["m@1"]
    assert subjects(sitting(1, deep=True)) == ["m@2"]


def test_a_broken_note_means_that_the_round_starts_again(
    sitting: Callable[..., Round], repo: OpenRepository
) -> None:
    sitting(1)
    repo.value.layout.round.write_bytes(b"{")
    assert subjects(sitting(1)) == ["m@1"]


def test_the_api_and_the_command_line_have_rounds(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    release(2.0)
    assert subjects(repo.verify_round(seconds=0)) == ["m@1"]
    assert subjects(repo.verify_round("m", seconds=60)) == ["m@2"]
