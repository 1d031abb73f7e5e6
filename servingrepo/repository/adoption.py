"""Adoptions: models come under management where they lie, all of one adoption at once or none.

Records and states come first, then models.config is replaced (C2). If an adoption leaves models.config as it is, the
last state is its commit point. Paths are in the marker before any state makes a model ours: an older servingrepo
would look for it in another folder. An adoption that died is finished if all of it is there, else its files are
removed and the marker is put back. Its note keeps what is needed for that, and for taking the adoption back later.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from servingrepo.errors import RepositoryDamaged
from servingrepo.modelconfig import Stamp, parse, read_stamp
from servingrepo.repository import history, journal
from servingrepo.repository.config import (
    current_text,
    last_text,
    put_config_back,
    served_versions,
    write_config,
)
from servingrepo.repository.history import Event
from servingrepo.repository.records import SCHEMA, damaged, encode, load
from servingrepo.repository.repository import (
    forget_paths,
    load_state,
    model_names,
    save_paths,
    with_paths,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.journal import Intent
    from servingrepo.repository.records import ModelState
    from servingrepo.repository.repository import Repository

ADOPT = "adopt"
UNDO = "adopt-undo"


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """The note of one adoption: what it does, and what models.config was before.

    Attributes:
        txid: The transaction: also the name of its intent, and in the records of its versions.
        config_before: The text of models.config before it.
        config_after: The digest of the text that it writes.
        events: Its lines of history, one for each model. `versions` are those that it adopts.
        states: The models that have a state by it, each with the highest number that the state says.
        paths: The models that have a path by it, other than their name, each with the path.
    """

    schema: int = SCHEMA
    txid: str
    config_before: str
    config_after: str
    events: tuple[Event, ...]
    states: dict[str, int] = {}
    paths: dict[str, str] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """The models of which it adopts versions, or whose entry it pins."""
        return tuple(event.model for event in self.events)


def config_digest(text: str) -> str:
    """Return the digest by which an adoption knows a text of models.config."""
    return f"blake3:{blake3(text.encode()).hexdigest()}"


def read_adoption(repo: Repository, txid: str) -> Adoption | None:
    """Return the note of an adoption; None if there is none, or if it was taken back.

    Raises:
        RepositoryDamaged, NewerFormat: It cannot be read.
    """
    path = repo.layout.adoption(txid)
    found = load(path, Adoption)
    if found is not None and found.txid != txid:
        raise damaged(path, f"it is about {found.txid!r}")
    return found


def newest_adoption(repo: Repository) -> Adoption | None:
    """Return the last adoption, by history, that was not taken back; None if there is none."""
    for event in history.read_backwards(repo.layout.history):
        if event.action == ADOPT:
            found = read_adoption(repo, event.id.partition(".")[0])
            if found is not None:
                return found
    return None


def take(
    repo: Repository,
    adoption: Adoption,
    config: ModelConfig,
    *,
    records: Iterable[tuple[str, int, bytes]],
    states: Sequence[ModelState],
) -> None:
    """Adopt: write the note, records, paths, states, models.config (C2) and history, each durably before the next.

    The caller holds the lock and has declared an intent of this transaction. A state makes a model ours, so all its
    records are durable by then. `records` has the bytes of each, with its model and number.
    """
    layout = repo.layout
    repo.disk.make_directory(layout.adoptions)
    repo.disk.replace_file(layout.adoption(adoption.txid), encode(adoption), step="adoption")
    files = ((layout.record(model, number), data) for model, number, data in records)
    repo.disk.write_files(files, step="records")
    if adoption.paths:
        save_paths(with_paths(repo, adoption.paths))
    save_states(repo, states)
    write_config(repo, config)
    _append_missing(repo, adoption.events)


def changes_since(repo: Repository, adoption: Adoption) -> list[str]:
    """Return what happened to models.config, or to the models of an adoption, since it was made."""
    ours = set(adoption.models)
    found = []
    if config_digest(current_text(repo)) != adoption.config_after:
        found.append(f"{repo.config_name} was changed")
    own = {event.id for event in adoption.events}
    for event in history.read_backwards(repo.layout.history):
        if event.id in own:
            break
        if event.model in ours:
            found.append(f"{event.action} of {event.model} at {event.time}")
    intents = journal.read_all(repo.layout.journal, leave_out_unreadable=True)
    found += [
        f"{intent.command} of {intent.model} runs"
        for intent, alive in intents
        if alive and intent.model in ours
    ]
    for model, highest in adoption.states.items():
        state = load_state(repo, model)
        if state is None or state.highest != highest:
            found.append(f"a number of {model} was used")
    return found


def take_back(repo: Repository, adoption: Adoption, about: Event) -> None:
    """Take an adoption back: restore models.config (C2); remove states, records, paths; write history; drop the note.

    The caller holds the lock and has declared an intent. `about` has the user, the time and the reason. All of this
    may be repeated: recovery does so after a crash.
    """
    put_config_back(repo, adoption.config_before)
    _remove(repo, adoption)
    _append_missing(repo, _undone(repo, adoption, about))
    repo.disk.remove_file(repo.layout.adoption(adoption.txid))


def has_happened(repo: Repository, intent: Intent) -> bool:
    """Tell whether the adoption of an intent, or its undoing, has happened.

    Raises:
        RepositoryDamaged: Its note cannot be read.
    """
    adoption = read_adoption(repo, intent.txid)
    if adoption is None:
        return intent.command == UNDO  # the note is removed last
    digest = config_digest(current_text(repo))
    files = chain(_states(repo, adoption), _records(repo, adoption))
    whole = all(path.exists() for path in files)
    if intent.command == ADOPT:
        return digest == adoption.config_after and whole
    before = config_digest(adoption.config_before)
    return digest == before and (before != adoption.config_after or not whole)


def settle_adoption(repo: Repository, intent: Intent) -> str:
    """Finish or drop an adoption, or its undoing, whose command died; return the outcome in words."""
    try:
        adoption, happened = read_adoption(repo, intent.txid), has_happened(repo, intent)
    except RepositoryDamaged as error:
        return f"what it did is not known, and stays: {error.message}"
    if happened and adoption is not None:
        if intent.event is None:
            _append_missing(repo, [_recovered(event) for event in adoption.events])
        else:
            take_back(repo, adoption, _recovered(intent.event))
    elif adoption is not None and intent.command == ADOPT:
        _forget_copy(repo, adoption)
        _remove(repo, adoption)
        repo.disk.remove_file(repo.layout.adoption(adoption.txid))
    return "it had happened: history finished" if happened else "it had not happened: dropped"


def forget_policies(repo: Repository) -> None:
    """Note that servers were sent models.config: none follows a policy that an adoption replaced.

    The caller holds the lock.
    """
    states = (load_state(repo, name) for name in model_names(repo))
    told = [
        msgspec.structs.replace(state, policy_before="")
        for state in states
        if state is not None and state.policy_before
    ]
    if told:
        save_states(repo, told)


def _recovered(event: Event) -> Event:
    return msgspec.structs.replace(event, recovered=True)


def _forget_copy(repo: Repository, adoption: Adoption) -> None:
    """Remove the copy of a config that was never served, where servingrepo had written none before."""
    last = last_text(repo)
    ours = read_stamp(adoption.config_before) is Stamp.UNEDITED
    if last is not None and not ours and config_digest(last) == adoption.config_after:
        repo.disk.remove_file(repo.layout.last_config)


def save_states(repo: Repository, states: Sequence[ModelState]) -> None:
    """Write the states of many models; the caller holds the lock."""
    files = [(repo.layout.state(state.name), encode(state)) for state in states]
    repo.disk.write_files(files, step="records")


def _states(repo: Repository, adoption: Adoption) -> Iterator[Path]:
    return (repo.layout.state(model) for model in adoption.states)


def _records(repo: Repository, adoption: Adoption) -> Iterator[Path]:
    """Return the records of an adoption. No version of it had one before."""
    return (
        repo.layout.record(one.model, version)
        for one in adoption.events
        for version in one.versions
    )


def _remove(repo: Repository, adoption: Adoption) -> None:
    """Remove states, then records, and what a killed command left beside them; then put the marker back."""
    for files in (_states, _records):
        own = files(repo, adoption)
        repo.disk.remove_files(
            one for path in own for one in (path, path.with_name(f".{path.name}.tmp"))
        )
    for model in adoption.states:
        with suppress(OSError):  # it is not there, or not empty
            repo.layout.records(model).rmdir()
    forget_paths(repo, adoption.paths)


def _append_missing(repo: Repository, events: Sequence[Event]) -> None:
    """Append the events that history lacks. Nothing else was appended since: every writer recovers first."""
    newest = islice(history.read_backwards(repo.layout.history), len(events))
    known = {event.id for event in newest}
    missing = [event for event in events if event.id not in known]
    if missing:
        history.append(repo.disk, repo.layout.history, *missing)


def _undone(repo: Repository, adoption: Adoption, about: Event) -> list[Event]:
    """Return the lines of history of an undoing, whose models lie where they lay while they were ours."""
    config = parse(adoption.config_before)
    paths = {**repo.layout.paths, **adoption.paths}
    seen = msgspec.structs.replace(repo, layout=msgspec.structs.replace(repo.layout, paths=paths))
    return [
        msgspec.structs.replace(
            about,
            id=f"{about.id}.{number}",
            model=event.model,
            version=event.version,
            versions=event.versions,
            before=event.after,
            after=served_versions(seen, config, event.model),
            labels_before=event.labels_after,
            labels_after=event.labels_before,
        )
        for number, event in enumerate(adoption.events, start=1)
    ]
