from __future__ import annotations

import threading
import time

import pytest

from servingrepo.deadline import Deadline
from servingrepo.errors import EndpointUnreachable, LoadFailed
from servingrepo.fleet.failures import Abandoned, FollowTimeout, together, uncertain_endpoints
from servingrepo.fleet.parallel import each


def test_all_are_asked_at_once_and_answers_keep_their_order() -> None:
    meeting = threading.Barrier(5, timeout=10)

    def step(number: int) -> int:
        meeting.wait()
        return number * number

    assert [answer.value for answer in each(range(5), step)] == [0, 1, 4, 9, 16]


def test_the_first_failure_ends_the_waiting_of_the_others() -> None:
    deadline = Deadline.after(60).stoppable()

    def step(number: int) -> None:
        if number == 1:
            raise LoadFailed("it cannot load")
        deadline.pause(60)
        raise Abandoned("localhost:8500")

    begun = time.monotonic()
    answers = each(range(3), step, deadline=deadline)
    assert time.monotonic() - begun < 10
    error = together([answer.error for answer in answers if answer.error is not None])
    assert isinstance(error, LoadFailed)
    assert error.problems == (), "who only stopped has nothing to say"


def test_a_failure_that_is_tolerated_ends_nothing() -> None:
    deadline = Deadline.after(60).stoppable()

    def step(_: int) -> None:
        raise EndpointUnreachable("gone")

    each(range(2), step, deadline=deadline, halt=lambda _: False)
    assert not deadline.stopped


def test_several_errors_become_one_that_has_them_all() -> None:
    error = together(
        [
            FollowTimeout("slow", endpoint="b:1", hint="", uncertain=True),
            LoadFailed("broken"),
            FollowTimeout("slower", endpoint="a:1", hint="", uncertain=True),
        ]
    )
    assert (error.message, error.problems) == ("broken", ("slow", "slower"))
    assert uncertain_endpoints(error) == {"a:1", "b:1"}
    assert error.details["uncertain"] == ["a:1", "b:1"]


def test_a_mistake_of_ours_is_not_swallowed() -> None:
    def step(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        each(range(2), step)
