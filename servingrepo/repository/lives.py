"""The life of a model: its versions with their records, and what happened to it, as far back as a reader wants."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ServingRepoError
from servingrepo.repository import history
from servingrepo.repository.history import Event
from servingrepo.repository.listing import ModelDetails, show_model
from servingrepo.repository.records import VersionRecord
from servingrepo.repository.repository import load_record, model_names, need_state

if TYPE_CHECKING:
    from servingrepo.repository.repository import Repository

__all__ = ["Life", "read_lives"]

MOST_EVENTS = 5000
"""The newest events of a model that its life has."""
MOST_RECORDS = 200
MOST_RECORDS_OF_ALL = 20
"""The newest records of a model that its life has: alone, and among those of all models."""


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
        return (_life(repo, model, MOST_RECORDS),)
    lives = (_life(repo, name, MOST_RECORDS_OF_ALL) for name in sorted(model_names(repo)))
    return tuple(one for one in lives if one.events or one.model.versions or one.model.trash)


def _life(repo: Repository, model: str, most: int) -> Life:
    details = show_model(repo, model)
    newest = history.read_backwards(repo.layout.history, model=model)
    events = list(islice(newest, MOST_EVENTS + 1))
    kept = {one.version for one in details.versions}
    numbers = sorted(kept | {one.version for one in details.trash}, reverse=True)
    records, unreadable = [], []
    for number in numbers[:most]:
        try:
            record = load_record(repo, model, number)
        except ServingRepoError as error:
            unreadable.append(error.message)
            continue
        if record is not None:
            records.append(record)
    return Life(
        model=details,
        records=tuple(records),
        records_left=len(numbers[most:]),
        unreadable=tuple(unreadable),
        events=tuple(reversed(events[:MOST_EVENTS])),
        events_left=len(events) > MOST_EVENTS,
    )
