"""The life of a model: its versions with their records, and what happened to it, as far back as a reader wants."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ServingRepoError
from servingrepo.repository import history
from servingrepo.repository.config import read_steadily
from servingrepo.repository.history import Event
from servingrepo.repository.listing import ModelDetails, details_of
from servingrepo.repository.records import VersionRecord
from servingrepo.repository.repository import load_record, model_names, need_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.repository.config import ConfigFile
    from servingrepo.repository.repository import Repository

__all__ = ["Life", "read_lives"]


class Most(msgspec.Struct, frozen=True):
    """The newest events and records of a model that its life has."""

    events: int
    records: int


MOST = Most(events=5000, records=200)
MOST_OF_ALL = Most(events=500, records=20)
"""In the lives of all models: a page has to hold them."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model.

    Attributes:
        model: The model now.
        records: The records of its versions and of those in the trash, highest first.
        records_left: How many more there are.
        unreadable: Why records could not be read.
        events: What happened, oldest first.
        events_left: Whether more happened before.
    """

    model: ModelDetails
    records: tuple[VersionRecord, ...]
    records_left: int = 0
    unreadable: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    events_left: bool = False


def read_lives(repo: Repository, model: str | None = None) -> tuple[Life, ...]:
    """Return the life of a model, or of all that this repository has versions or events of, by name.

    Raises:
        NoSuchVersion: There is no such model.
        RepositoryDamaged: The history cannot be read.
    """
    if model is not None:
        need_state(repo, model)
    most = MOST if model is not None else MOST_OF_ALL
    return read_steadily(repo, lambda file: tuple(_lives(repo, file, model, most)))


def _lives(repo: Repository, file: ConfigFile, model: str | None, most: Most) -> Iterator[Life]:
    """Yield lives. The history is read once for all models."""
    events: defaultdict[str, deque[Event]] = defaultdict(lambda: deque(maxlen=most.events + 1))
    for event in history.read(repo.layout.history, model=model):
        events[event.model].append(event)
    for name in (model,) if model is not None else sorted(model_names(repo)):
        details = details_of(repo, file, name)
        if model is not None or details.versions or details.trash or events[name]:
            yield _life(repo, details, list(events[name]), most)


def _life(repo: Repository, details: ModelDetails, events: list[Event], most: Most) -> Life:
    kept = {one.version for one in details.versions}
    numbers = sorted(kept | {one.version for one in details.trash}, reverse=True)
    records, unreadable = [], []
    for number in numbers[: most.records]:
        try:
            record = load_record(repo, details.model, number)
        except ServingRepoError as error:
            unreadable.append(error.message)
            continue
        if record is not None:
            records.append(record)
    return Life(
        model=details,
        records=tuple(records),
        records_left=len(numbers[most.records :]),
        unreadable=tuple(unreadable),
        events=tuple(events[-most.events :]),
        events_left=len(events) > most.events,
    )
