"""Lists and details of models, versions, events and origins. It reads records and the config, never the exports."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ServingRepoError
from servingrepo.modelconfig import models
from servingrepo.repository import history
from servingrepo.repository.config import folder_of, read_config, read_steadily
from servingrepo.repository.records import (
    BadMark,
    Hold,
    VersionRecord,
    say_proofs,
)
from servingrepo.repository.repository import (
    Repository,
    find_version,
    load_head,
    load_record,
    load_state,
    model_folders,
    model_names,
    names_on_disk,
    need_state,
    version_names,
)
from servingrepo.repository.snapshot import Snapshot, snapshot_of
from servingrepo.repository.trash import contents, trashed_versions, tree_bytes
from servingrepo.runs.origin import Origin
from servingrepo.storage.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from servingrepo.modelconfig import ModelConfig
    from servingrepo.repository.config import ConfigFile
    from servingrepo.repository.history import Event


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model in a line. `unknown` says why models.config cannot be read; then it is unknown what is served.

    `elsewhere` is the base path of an unmanaged model, whose versions are not where this repository keeps them.
    `ours` is false if servingrepo has published no version of the model, but files or models.config have its name.
    """

    model: str
    served: int | None
    pinned: tuple[int, ...]
    labels: dict[str, int]
    versions: tuple[int, ...]
    foreign: tuple[int, ...]
    bad: tuple[int, ...]
    held: bool
    trash: tuple[int, ...] = ()
    trash_size: int = 0
    unknown: str = ""
    elsewhere: str = ""
    ours: bool = True


class UnmanagedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that servingrepo does not manage: its entry in models.config, or a folder with versions, or both.

    `folder` is where its versions are here; empty if the base path of its entry is not below the server root.
    `policy` and `base_path` are those of its entry.
    """

    model: str
    folder: str = ""
    versions: tuple[int, ...] = ()
    policy: str = "none"
    base_path: str = ""


class TrashRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version in the trash: `servingrepo restore` brings it back. `since` is ISO 8601, in UTC."""

    version: int
    since: str
    size: int
    message: str
    bad: BadMark | None


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version in a line. `proof` is "not checked" if no smoke test ran."""

    version: int
    created: str
    by: str
    run: str
    size: int
    message: str
    proof: str
    served: bool
    pinned: bool
    labels: tuple[str, ...]
    bad: BadMark | None


class ModelDetails(msgspec.Struct, frozen=True, kw_only=True):
    """One model with all its versions. `unknown`, `elsewhere` and `ours` are as in ModelRow."""

    model: str
    served: int | None
    highest: int
    hold: Hold | None
    labels: dict[str, int]
    versions: tuple[VersionRow, ...]
    foreign: tuple[str, ...]
    trash: tuple[TrashRow, ...] = ()
    unknown: str = ""
    elsewhere: str = ""
    ours: bool = True


def shown_names(repo: Repository, config: ModelConfig) -> tuple[str, ...]:
    """Return the names of all models to show, sorted.

    They are our models, those with an entry in models.config, and those with unmanaged versions on disk. A model of
    ours whose first promotion failed is left out: it has no version, only a burnt number.
    """
    named = {one.name for one in models(config)}
    ours = model_names(repo)
    idle = [name for name in ours if name not in named]
    names = {*named, *ours} - _blank(repo, idle)
    with storage_errors("read", repo.layout.models):
        folders = model_folders(repo) if repo.layout.models.exists() else {}
    others = {
        name
        for folder, name in folders.items()
        if name is not None and name not in ours and name[0] != "." and version_names(folder)
    }
    return tuple(sorted(names | others))


def unmanaged_models(repo: Repository, config: ModelConfig) -> tuple[UnmanagedModel, ...]:
    """Return the models that are not ours, by name: entries of models.config, and folders with versions."""
    ours = {*model_names(repo)}
    entries = [one for one in models(config) if one.name not in ours]
    places = {one.name: folder_of(repo, one.base_path) for one in entries}
    found = {
        one.name: UnmanagedModel(
            model=one.name,
            folder=str(place) if (place := places[one.name]) is not None else "",
            versions=tuple(version_names(place) or ()) if place is not None else (),
            policy=one.policy,
            base_path=one.base_path,
        )
        for one in entries
    }
    for folder, name in model_folders(repo).items():
        others = name is None or name in ours or name in found or name.startswith(".")
        if not others and folder not in places.values() and (versions := version_names(folder)):
            row = UnmanagedModel(model=str(name), folder=str(folder), versions=tuple(versions))
            found[row.model] = row
    return tuple(found[name] for name in sorted(found))


def _blank(repo: Repository, names: Iterable[str]) -> set[str]:
    """Return those of our models that have no version, mark or event, and never had any."""
    empty = [name for name in names if _is_empty(repo, name)]
    past = history.Past(repo.layout.history, empty)
    blank: set[str] = set()
    for name in empty:
        with suppress(
            ServingRepoError
        ):  # commands that need the history report that it cannot be read
            if not any(past.moves(name)):
                blank.add(name)
    return blank


def _is_empty(repo: Repository, model: str) -> bool:
    """Tell whether a model has no version or mark. What cannot be read is not empty."""
    state = load_state(repo, model)
    if state is None or state.bad or state.hold is not None or names_on_disk(repo, model):
        return False
    with suppress(ServingRepoError):
        return not trashed_versions(repo.layout, model)
    return False


def list_models(repo: Repository) -> tuple[ModelRow, ...]:
    """Return a row for each model, by name; see `shown_names`."""
    return read_steadily(repo, lambda file: _rows(repo, file))


def _rows(repo: Repository, file: ConfigFile) -> tuple[ModelRow, ...]:
    rows: list[ModelRow] = []
    for name in shown_names(repo, file.config):
        now = snapshot_of(repo, name, file.config)
        ours = now.state is not None
        trash, trash_size = summed_trash(repo, name) if ours else ((), 0)
        rows.append(
            ModelRow(
                model=name,
                served=now.top,
                pinned=now.served,
                labels=dict(now.labels),
                versions=now.published,
                foreign=tuple(now.unmanaged),
                bad=tuple(sorted(now.bad)),
                held=now.hold is not None,
                trash=trash,
                trash_size=trash_size,
                unknown=file.unknown,
                elsewhere=now.elsewhere,
                ours=ours,
            )
        )
    return tuple(rows)


def show_model(repo: Repository, model: str) -> ModelDetails:
    """Return one model with its versions, highest first.

    Raises:
        NoSuchVersion: There is no such model.
    """
    return read_steadily(repo, lambda file: details_of(repo, file, model))


def details_of(repo: Repository, file: ConfigFile, model: str) -> ModelDetails:
    """Return one model with its versions, by a config that was read before; see `show_model`."""
    now = snapshot_of(repo, model, file.config)
    if now.state is None and now.entry is None and not now.unmanaged:
        need_state(repo, model)
    rows: list[VersionRow] = []
    for number in reversed(now.published):
        head = load_head(repo, model, number)
        if head is None:
            continue
        rows.append(
            VersionRow(
                version=number,
                created=head.created,
                by=f"{head.user}@{head.host}",
                run=head.source.run,
                size=head.size,
                message=head.message,
                proof=say_proofs(head.proofs),
                served=not now.elsewhere and number == now.top,
                pinned=not now.elsewhere and number in now.served,
                labels=tuple(
                    sorted(
                        label
                        for label, at in now.labels.items()
                        if at == number and not now.elsewhere
                    )
                ),
                bad=now.bad.get(number),
            )
        )
    return ModelDetails(
        model=model,
        served=now.top,
        highest=now.state.highest if now.state is not None else 0,
        hold=now.hold,
        labels=dict(now.labels),
        versions=tuple(rows),
        foreign=tuple(name for names in now.unmanaged.values() for name in names),
        trash=tuple(_trash_rows(repo, now)) if now.state is not None else (),
        unknown=file.unknown,
        elsewhere=now.elsewhere,
        ours=now.state is not None,
    )


def _trash_rows(repo: Repository, now: Snapshot) -> Iterator[TrashRow]:
    for one in reversed(trashed_versions(repo.layout, now.model)):
        head = load_head(repo, now.model, one.version)
        yield TrashRow(
            version=one.version,
            since=one.since.isoformat(timespec="seconds") if one.since is not None else "unknown",
            size=head.size if head is not None else tree_bytes(Path(one.path)),
            message=head.message if head is not None else "no record: it cannot be restored",
            bad=now.bad.get(one.version),
        )


def summed_trash(repo: Repository, model: str) -> tuple[tuple[int, ...], int]:
    """Return the versions in a model's trash, and its bytes on disk, those that are just being deleted included."""
    found, going = contents(repo.layout, model)
    size = sum(tree_bytes(Path(one.path)) for one in (*found, *going))
    return tuple(one.version for one in found), size


def list_events(
    repo: Repository, model: str | None = None, *, limit: int | None = None
) -> Iterator[Event]:
    """Yield events, oldest first, of a model or of all; with a limit the last ones only.

    Raises:
        NoSuchVersion: There is no such model.
    """
    if model is not None:
        need_state(repo, model)
    path = repo.layout.history
    if limit is None:
        return history.read(path, model=model)
    return reversed(list(islice(history.read_backwards(path, model=model), limit)))


def show_version(repo: Repository, model: str, version: int) -> VersionRecord:
    """Return the record of a version that is on disk or in the trash.

    Raises:
        NoSuchVersion: There is no such version of ours.
    """
    return find_version(repo, model, version)[0]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of one version that servers have.

    Without a record of the version, `run` is empty and `origin` None. `since` is when it was last switched to, by
    history, as ISO 8601; empty if history does not know.
    """

    model: str
    version: int
    served: bool
    labels: tuple[str, ...]
    since: str
    run: str
    export: str
    created: str
    by: str
    origin: Origin | None


def lineage(
    repo: Repository, model: str | None = None, *, version: int | None = None
) -> tuple[Lineage, ...]:
    """Return where every pinned version came from, of a model or of all; or one version, served or not.

    Raises:
        NoSuchVersion: There is no such model.
    """
    config = read_config(repo).config
    names = model_names(repo) if model is None else (model,)
    past = history.Past(repo.layout.history, names)
    rows: list[Lineage] = []
    for name in names:
        need_state(repo, name)
        now = snapshot_of(repo, name, config)
        since = _since(past.events(name), now.pins)
        for number in (version,) if version is not None else now.pins:
            # A version elsewhere may have the same number as a version of ours.
            ours = not now.elsewhere or number not in now.pins
            record = load_record(repo, name, number) if ours else None
            rows.append(
                Lineage(
                    model=name,
                    version=number,
                    served=number == max(now.pins, default=None),
                    labels=tuple(sorted(label for label, at in now.labels.items() if at == number)),
                    since=since.get(number, ""),
                    run=record.source.run if record is not None else "",
                    export=record.source.export if record is not None else "",
                    created=record.created if record is not None else "",
                    by=f"{record.user}@{record.host}" if record is not None else "",
                    origin=record.origin if record is not None else None,
                )
            )
    return tuple(rows)


def _since(newest_first: Iterable[Event], versions: Collection[int]) -> dict[int, str]:
    """Return when each of these versions was last switched to, by history, as far as that knows."""
    found: dict[int, str] = {}
    for event in newest_first:
        for number in set(event.after) - set(event.before):
            if number in versions:
                found.setdefault(number, event.time)
        if len(found) == len(versions):
            break
    return found
