from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoSuchVersion, VersionBad
from servingrepo.repository.repository import load_record, load_state

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository
    from servingrepo.repository.records import ModelState
    from tests.repository.conftest import Release


def state_of(repo: OpenRepository) -> ModelState:
    state = load_state(repo.value, "m")
    assert state is not None
    return state


@pytest.fixture
def repo2(repo: OpenRepository, release: Release) -> OpenRepository:
    """A repository with two versions, the second one served."""
    release(1.0)
    release(2.0)
    return repo


def test_a_bad_mark_says_who_when_why_and_which_content(repo2: OpenRepository) -> None:
    event = repo2.mark_bad("m@1", message="broken labels")
    mark = state_of(repo2).bad[1]
    record = load_record(repo2.value, "m", 1)
    assert record is not None
    assert (mark.reason, mark.digest, mark.time) == ("broken labels", record.digest, event.time)
    assert mark.user == event.user
    assert list(repo2.history("m"))[-1] == event


def test_what_is_served_stays_served_when_it_is_marked(repo2: OpenRepository) -> None:
    repo2.mark_bad("m@served")
    assert repo2.show("m").served == 2


def test_a_bad_version_is_not_served_until_the_mark_is_cleared(repo2: OpenRepository) -> None:
    repo2.mark_bad("m@1", message="broken labels")
    with pytest.raises(VersionBad, match="broken labels"):
        repo2.serve("m@1")
    repo2.mark_bad("m@1", clear=True)
    assert state_of(repo2).bad == {}
    assert repo2.serve("m@1").after == (1,)


def test_marking_twice_keeps_the_first_mark_and_says_nothing_new(repo2: OpenRepository) -> None:
    repo2.mark_bad("m@1", message="first")
    before = list(repo2.history())
    repo2.mark_bad("m@1", message="second")
    assert state_of(repo2).bad[1].reason == "first"
    assert list(repo2.history()) == before


def test_marking_again_without_a_reason_keeps_it_and_with_one_gives_it(
    repo2: OpenRepository,
) -> None:
    repo2.mark_bad("m@1", message="leaks")
    before = state_of(repo2)
    assert repo2.mark_bad("m@1").why == "leaks"
    assert state_of(repo2) == before
    repo2.mark_bad("m@2")
    repo2.mark_bad("m@2", message="found out why")
    assert state_of(repo2).bad[2].reason == "found out why"


def test_a_version_that_is_not_there_or_not_bad_is_refused(repo2: OpenRepository) -> None:
    with pytest.raises(NoSuchVersion, match="no version 9"):
        repo2.mark_bad("m@9")
    with pytest.raises(NoSuchVersion, match="m@1 is not marked bad") as caught:
        repo2.mark_bad("m@1", clear=True)
    assert caught.value.hint == "versions marked bad: none"


def test_a_rollback_marks_the_version_that_it_leaves(repo2: OpenRepository) -> None:
    assert repo2.rollback("m", message="worse").marked_bad == 2
    assert state_of(repo2).bad[2].reason == "worse"
    assert state_of(repo2).highest == 2


def test_a_hold_says_who_when_and_why_and_is_released(repo2: OpenRepository) -> None:
    event = repo2.hold("m", message="freeze")
    held = state_of(repo2).hold
    assert held is not None
    assert (held.reason, held.time) == ("freeze", event.time)
    repo2.hold("m", message="longer freeze")
    again = state_of(repo2).hold
    assert again is not None
    assert again.reason == "longer freeze"
    repo2.release_hold("m")
    assert state_of(repo2).hold is None
    assert [one.action for one in repo2.history("m")][-3:] == ["hold", "hold", "release-hold"]


def test_a_hold_without_a_reason_keeps_the_hold_that_is_there(repo2: OpenRepository) -> None:
    first = repo2.hold("m", message="freeze")
    before = state_of(repo2), repo2.value.layout.history.read_bytes()
    again = repo2.hold("m")
    assert (again.why, again.time, again.user) == ("freeze", first.time, first.user)
    assert (state_of(repo2), repo2.value.layout.history.read_bytes()) == before


def test_releasing_what_is_not_held_changes_nothing(repo2: OpenRepository) -> None:
    before = repo2.value.layout.history.read_bytes()
    repo2.release_hold("m")
    assert repo2.value.layout.history.read_bytes() == before


def test_a_dry_run_marks_and_holds_nothing(repo2: OpenRepository) -> None:
    before = state_of(repo2), repo2.value.layout.history.read_bytes()
    repo2.mark_bad("m@1", dry_run=True)
    repo2.hold("m", dry_run=True)
    assert (state_of(repo2), repo2.value.layout.history.read_bytes()) == before


def test_marks_and_holds_need_a_model(repo2: OpenRepository) -> None:
    for call in (repo2.hold, repo2.release_hold):
        with pytest.raises(NoSuchVersion, match="no model other"):
            call("other")
