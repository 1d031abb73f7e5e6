"""Protections: why a prune must keep a version. Something serves it, would need it, or reads it now.

In doubt a version is kept. Both the present config counts, whoever wrote it, and the one that servingrepo wrote last.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ConfigInvalid, NoSuchVersion, NotConverged, NothingToRollBack
from servingrepo.modelconfig import Entry, ModelConfig, models, parse, render
from servingrepo.repository import history, journal
from servingrepo.repository.config import (
    folder_of,
    is_elsewhere,
    last_text,
    read_config,
    served_by_policy,
)
from servingrepo.repository.history import Move
from servingrepo.repository.journal import Intent
from servingrepo.repository.references import previous_version
from servingrepo.repository.repository import is_behind_link, names_on_disk
from servingrepo.repository.snapshot import Snapshot, read_snapshot
from servingrepo.repository.version_lock import used_versions
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.reading import links_in

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from servingrepo.repository.repository import Repository

Loaded = dict[str, dict[int, tuple[str, ...]]]
"""What live servers say of each version, by model and version: one text for each server."""


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """The state that a promotion would leave, to foresee what a prune after it would take.

    Attributes:
        version: The version that it would publish, or that has the same content already.
        size: The size of that version in bytes.
        config: The new models.config.
        move: The versions that would be pinned before and after.
    """

    version: int
    size: int
    config: ModelConfig
    move: Move


class ServedFolders(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of a config by the folder of ours that each serves from, under whatever name.

    We do not always know where the server sees the folder: the entry may be hand-written, or the folder a link. So an
    entry whose base path ends in the name of a folder counts too, unless there is another folder for it.

    Attributes:
        entries: All entries, in the config's order. The other fields have their places in it.
        by_name: Entries by the name of their model.
        by_folder: Entries by the folder that is their base path.
        by_last_part: Entries that have no folder, by the last part of their base path.
        by_inode: Entries whose folder is a link or lies behind one, by device and inode of its target.
    """

    entries: tuple[Entry, ...]
    by_name: Mapping[str, list[int]]
    by_folder: Mapping[Path, list[int]]
    by_last_part: Mapping[str, list[int]]
    by_inode: Mapping[tuple[int, int], list[int]]

    def of(self, repo: Repository, model: str) -> tuple[Entry, ...]:
        """Return every entry that serves from a model's folder."""
        base = repo.layout.model(model)
        places = {
            *self.by_name.get(model, ()),
            *self.by_folder.get(base, ()),
            *self.by_last_part.get(base.name, ()),
        }
        if self.by_inode and base.exists():
            places.update(self.by_inode.get(_inode(base), ()))
        return tuple(self.entries[place] for place in sorted(places))


def served_folders(repo: Repository, config: ModelConfig) -> ServedFolders:
    """Find the folder of every entry of a config now."""
    entries = models(config)
    by_name: defaultdict[str, list[int]] = defaultdict(list)
    by_folder: defaultdict[Path, list[int]] = defaultdict(list)
    by_last_part: defaultdict[str, list[int]] = defaultdict(list)
    by_inode: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for place, one in enumerate(entries):
        by_name[one.name].append(place)
        folder = folder_of(repo, one.base_path)
        name = posixpath.basename(posixpath.normpath(one.base_path))
        if folder is not None:
            by_folder[folder].append(place)
        if folder is None or not folder.is_dir():
            by_last_part[name].append(place)
        other = folder or repo.layout.models / name
        if is_behind_link(repo, other) and other.exists():
            by_inode[_inode(other)].append(place)
    return ServedFolders(
        entries=entries,
        by_name=by_name,
        by_folder=by_folder,
        by_last_part=by_last_part,
        by_inode=by_inode,
    )


def _inode(path: Path) -> tuple[int, int]:
    """Return device and inode of a file, links followed: equal for two paths of one file (os.path.samestat)."""
    facts = path.stat()
    return facts.st_dev, facts.st_ino


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the protections of all models depend on, read once for all of them.

    Attributes:
        config: models.config.
        folders: Its entries, by folder.
        folders_last: Those of the models.config that servingrepo wrote last; None if it is the same or unreadable.
        intents: The unfinished commands.
        past: The history of the models.
    """

    config: ModelConfig
    folders: ServedFolders
    folders_last: ServedFolders | None
    intents: tuple[Intent, ...]
    past: history.Past


def read_surroundings(repo: Repository, models: Collection[str]) -> Surroundings:
    """Read what the protections of these models depend on.

    Raises:
        ConfigInvalid: models.config cannot be read, so it is unknown what is served.
        RepositoryDamaged: An intent cannot be read.
    """
    config = read_config(repo).config
    return Surroundings(
        config=config,
        folders=served_folders(repo, config),
        folders_last=_folders_last(repo, config),
        intents=tuple(intent for intent, _ in journal.read_all(repo.layout.journal)),
        past=history.Past(repo.layout.history, models),
    )


def _folders_last(repo: Repository, config: ModelConfig) -> ServedFolders | None:
    text = last_text(repo)
    if text is None or text == render(config):
        return None
    try:
        last = parse(text, source=str(repo.layout.last_config))
    except ConfigInvalid:
        return None  # the copy is only a copy
    return served_folders(repo, last)


def protections(
    repo: Repository,
    now: Snapshot,
    around: Surroundings,
    *,
    loaded: Loaded,
    foreseen: Foreseen | None = None,
) -> dict[int, tuple[str, ...]]:
    """Return for each published version all reasons why it must not go; the tuple is empty if there is none.

    With `foreseen`, the reasons are those after that promotion, and its version is among those returned.
    """
    model, versions = now.model, now.published
    found: dict[int, list[str]] = {version: [] for version in versions}
    if foreseen is not None:
        found.setdefault(foreseen.version, [])
        folders = served_folders(repo, foreseen.config)
        by_configs = _by_config(folders.of(repo, model), model, found)
    else:
        by_configs = _by_configs(repo, now, around)
    for version, reason in chain(
        by_configs,
        _previous(repo, now, around, foreseen),
        _by_intents(around, model),
        _loaded(loaded.get(model, {})),
        _held(now, found),
        _links(repo, model, versions),
        _in_use(repo, model, versions),
    ):
        if version in found and reason not in found[version]:
            found[version].append(reason)
    return {version: tuple(reasons) for version, reasons in found.items()}


def refuse_deployment(repo: Repository, model: str, version: int) -> None:
    """Refuse to restore a version if servers would load it as soon as its directory is there.

    Raises:
        ConfigInvalid: An entry's policy is `latest` or `all`, and the version would be among those it serves.
        NotConverged: Servers may still follow such a policy; see `refuse_followers`.
    """
    refuse_followers(read_snapshot(repo, model))
    on_disk = {*(names_on_disk(repo, model) or ()), version}
    for one in served_folders(repo, read_config(repo).config).of(repo, model):
        if one.policy != "specific" and version in served_by_policy(one, on_disk):
            policy = "no policy, which is latest" if one.policy == "default" else one.policy
            raise ConfigInvalid(
                f"{model}@{version} would be served as soon as it is back: the entry {one.name} of "
                f"{repo.layout.config} has {policy}; nothing was changed",
                hint="pin its versions by hand, then servingrepo config write --take-edit, then restore this one"
                if one.name != model or is_elsewhere(repo, one)
                else f"servingrepo serve {model}@N pins one version, then restore this one",
            )


def refuse_followers(now: Snapshot) -> None:
    """Refuse to make a version appear while servers may still follow a policy that an adoption replaced.

    A version's directory is its deployment on such a server, proven or not.

    Raises:
        NotConverged: No server was sent models.config since the adoption, as far as is known.
    """
    policy = now.state.policy_before if now.state is not None else ""
    if policy:
        raise NotConverged(
            f"servers may still follow the policy {policy} of {now.model}, which its adoption replaced: they would "
            "load a new version as soon as its directory is there; nothing was changed",
            hint="servingrepo reload --endpoint HOST:PORT sends them models.config; if all of them poll it, or were "
            "started with it since: servingrepo reload --reload poll",
            details={"policy": policy},
        )


def _by_configs(repo: Repository, now: Snapshot, around: Surroundings) -> Iterator[tuple[int, str]]:
    on_disk = (*now.published, *now.unmanaged)
    yield from _by_config(around.folders.of(repo, now.model), now.model, on_disk)
    if around.folders_last is not None:
        last = around.folders_last.of(repo, now.model)
        for version, reason in _by_config(last, now.model, on_disk):
            yield version, f"{reason} by the models.config that servingrepo wrote last"


def _by_config(
    entries: Iterable[Entry], model: str, on_disk: Collection[int]
) -> Iterator[tuple[int, str]]:
    """Yield what entries that serve from the model's folder serve and label."""
    for one in entries:
        kept = served_by_policy(one, on_disk)
        named = "" if one.name == model else f" as {one.name}"
        for version in sorted(kept):
            if one.policy != "specific":
                yield version, f"served{named} under the policy {one.policy}"
            elif version == max(kept):
                yield version, f"served{named}"
            else:
                yield version, f"pinned{named}"
        for label, version in sorted(one.labels.items()):
            yield version, f"labelled {label}{named}"


def _previous(
    repo: Repository, now: Snapshot, around: Surroundings, foreseen: Foreseen | None
) -> Iterator[tuple[int, str]]:
    """Yield the version that `rollback` goes to now.

    For a hand-written entry with a policy such as `latest`, yield also the version for the case that it was pinned.
    """
    reason = "what rollback goes to"
    past = around.past
    good = set(now.good)
    if foreseen is not None and foreseen.move.before != foreseen.move.after:
        previous = history.served_before(
            chain([foreseen.move], past.moves(now.model)),
            current=foreseen.move.served_after,
            usable=lambda version: version in good,
        )
        if previous is not None:
            yield previous, reason
        return
    with suppress(NothingToRollBack, NoSuchVersion):
        yield previous_version(repo, now, past=past), reason
    on_disk = (*now.published, *now.unmanaged)
    for one in around.folders.of(repo, now.model):
        if one.policy != "specific":
            found = history.served_before(
                past.moves(now.model),
                current=max(served_by_policy(one, on_disk), default=None),
                usable=lambda version: version in good,
            )
            if found is not None:
                yield found, reason


def _loaded(of_model: Mapping[int, tuple[str, ...]]) -> Iterator[tuple[int, str]]:
    yield from ((version, reason) for version, reasons in of_model.items() for reason in reasons)


def _held(now: Snapshot, versions: Collection[int]) -> Iterator[tuple[int, str]]:
    if now.hold is not None:
        reason = f"the model is held: {now.hold.reason or 'no reason given'}"
        yield from ((version, reason) for version in versions)


def _links(repo: Repository, model: str, versions: Collection[int]) -> Iterator[tuple[int, str]]:
    """Yield the versions that are links now. The trash keeps only directories, so a moved link would be lost."""
    folder = repo.layout.model(model)
    with storage_errors("read", folder), suppress(FileNotFoundError, NotADirectoryError):
        links = {*links_in(folder)}
        for version in versions:
            if str(version) in links:
                yield version, "it is a link now, and not the published directory"


def _in_use(repo: Repository, model: str, versions: Collection[int]) -> Iterator[tuple[int, str]]:
    for version in used_versions(repo, model, versions):
        yield version, "in use: another command verifies or smoke-tests it"


def _by_intents(around: Surroundings, model: str) -> Iterator[tuple[int, str]]:
    for intent in around.intents:
        if intent.model != model:
            continue
        event = intent.event
        named = {intent.version} if event is None else {*event.before, *event.after, event.version}
        for version in sorted(one for one in named if one is not None):
            yield version, f"named by the unfinished {intent.command} {intent.txid}"


def labels_ever(repo: Repository, model: str, around: Surroundings) -> dict[int, tuple[str, ...]]:
    """Return for each version the labels that it has now or, according to history, had at any time."""
    found: dict[int, set[str]] = {}
    for event in around.past.events(model):
        for labels in (event.labels_before, event.labels_after):
            for label, version in labels.items():
                found.setdefault(version, set()).add(label)
    for one in around.folders.of(repo, model):
        for label, version in one.labels.items():
            found.setdefault(version, set()).add(label)
    return {version: tuple(sorted(labels)) for version, labels in found.items()}
