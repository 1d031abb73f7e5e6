"""The same step on several servers at once: as slow as the slowest server, not as their sum.

Each server has a thread of its own. When a server fails, the others stop waiting: what they wait for is to be put
back anyway. Each server has an answer of its own.
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
"""How long threads may take to notice an interruption before the caller goes on without them."""


class Answer(msgspec.Struct, Generic[T, R], frozen=True):
    """The answer of one step on one server: a value or an error."""

    of: T
    value: R | None = None
    error: ServingRepoError | None = None


def each(
    servers: Sequence[T],
    step: Callable[[T], R],
    *,
    deadline: Deadline | None = None,
    halt: Callable[[ServingRepoError], bool] = lambda _: True,
) -> tuple[Answer[T, R], ...]:
    """Take a step on all servers (or endpoints) at once and return all answers, in order.

    Args:
        servers: On what to take it.
        step: The step; its ServingRepoErrors become answers.
        deadline: A deadline that the steps share. It is stopped when a step fails, and when all are interrupted,
            so that no step begins anything new.
        halt: Says of an error whether it stops the others.

    Raises:
        BaseException: An interruption (Ctrl-C, SIGTERM), or an error that is a mistake of ours.
    """
    answers: list[Answer[T, R] | None] = [None] * len(servers)
    mistakes: list[BaseException] = []

    def work(number: int, server: T) -> None:
        try:
            answers[number] = Answer(server, value=step(server))
        except ServingRepoError as error:
            answers[number] = Answer(server, error=error)
            if deadline is not None and halt(error):
                deadline.stop()
        except BaseException as mistake:  # noqa: BLE001 - raised again when all threads have ended
            mistakes.append(mistake)

    threads = [
        threading.Thread(target=work, args=(number, server), daemon=True)
        for number, server in enumerate(servers)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        _interrupt(threads, deadline)
        raise
    if mistakes:
        raise mistakes[0]
    return tuple(answer for answer in answers if answer is not None)


def _interrupt(threads: Sequence[threading.Thread], deadline: Deadline | None) -> None:
    """Stop what an interruption came into the middle of. Threads that miss it are not waited for."""
    if deadline is not None:
        deadline.stop()
    for thread in threads:
        if thread.ident is not None:
            thread.join(_INTERRUPTED_SECONDS)
