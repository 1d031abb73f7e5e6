"""The same step on several endpoints at once: as slow as the slowest of them, not as their sum.

A step runs in a thread of its own for each endpoint. When one fails, the others are told to stop waiting: what
they wait for is to be put back anyway. What each of them did or said is kept apart, never mixed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from servingrepo.errors import ServingRepoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servingrepo.deadline import Deadline

T = TypeVar("T")
R = TypeVar("R")

_INTERRUPTED_SECONDS = 2.0
"""What threads may take to notice an interruption before they are left behind."""


class Answer(msgspec.Struct, Generic[T, R], frozen=True):
    """What a step on one endpoint came to: a value or an error."""

    of: T
    value: R | None = None
    error: ServingRepoError | None = None


def each(
    ones: Sequence[T],
    step: Callable[[T], R],
    *,
    deadline: Deadline | None = None,
    halt: Callable[[ServingRepoError], bool] = lambda _: True,
) -> tuple[Answer[T, R], ...]:
    """Do a step on every one at once and return all answers, in order.

    Args:
        ones: What to do it on.
        step: What to do; its ServingRepoErrors become answers.
        deadline: A deadline that the steps share: it is stopped when one fails, and when the whole is
            interrupted, so that no step begins anything new.
        halt: Says of an error whether it stops the others.

    Raises:
        BaseException: An interruption (Ctrl-C, SIGTERM), or an error that is a mistake of ours.
    """
    answers: list[Answer[T, R] | None] = [None] * len(ones)
    mistakes: list[BaseException] = []

    def work(number: int, one: T) -> None:
        try:
            answers[number] = Answer(one, value=step(one))
        except ServingRepoError as error:
            answers[number] = Answer(one, error=error)
            if deadline is not None and halt(error):
                deadline.stop()
        except BaseException as mistake:  # noqa: BLE001 - raised again by whoever waits for the threads
            mistakes.append(mistake)

    threads = [
        threading.Thread(target=work, args=(number, one), daemon=True)
        for number, one in enumerate(ones)
    ]
    _run(threads, deadline)
    if mistakes:
        raise mistakes[0]
    return tuple(answer for answer in answers if answer is not None)


def _run(threads: Sequence[threading.Thread], deadline: Deadline | None) -> None:
    """Start all and wait for all; an interruption stops them, and leaves behind those that do not notice."""
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        if deadline is not None:
            deadline.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join(_INTERRUPTED_SECONDS)
        raise
