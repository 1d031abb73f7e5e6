"""Protections: why a prune must keep a version. Something serves it, would need it, or reads it now.

In doubt a version is kept. Both the present config counts, whoever wrote it, and the one that servingrepo wrote last.
"""

from __future__ import annotations

import posixpath
from contextlib import suppress
from itertools import chain
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
from servingrepo.repository.references import previous_version
from servingrepo.repository.repository import is_behind_link, names_on_disk
from servingrepo.repository.snapshot import Snapshot, read_snapshot
from servingrepo.repository.version_lock import is_used

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

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


def protections(
    repo: Repository,
    model: str,
    versions: Collection[int],
    *,
    loaded: Loaded,
    foreseen: Foreseen | None = None,
) -> dict[int, tuple[str, ...]]:
    """Return for each version all reasons why it must not go; the tuple is empty if there is none.

    With `foreseen`, the reasons are those after that promotion, and its version is among those returned.

    Raises:
        ConfigInvalid: models.config cannot be read, so it is unknown what is served.
    """
    now = read_snapshot(repo, model)
    found: dict[int, list[str]] = {version: [] for version in versions}
    if foreseen is not None:
        found.setdefault(foreseen.version, [])
        by_configs = _by_config(
            repo, foreseen.config, model, dict.fromkeys(found), said="models.config"
        )
    else:
        by_configs = _by_configs(repo, now)
    for version, reason in chain(
        by_configs,
        _previous(repo, now, foreseen),
        _by_intents(repo, model),
        _loaded(loaded.get(model, {})),
        _held(now, found),
        _links(repo, model, versions),
        _in_use(repo, model, versions),
    ):
        if version in found and reason not in found[version]:
            found[version].append(reason)
    return {version: tuple(reasons) for version, reasons in found.items()}


def entries_of(repo: Repository, config: ModelConfig, model: str) -> tuple[Entry, ...]:
    """Return every entry that serves from a model's folder, under whatever name.

    We do not always know where the server sees the folder: the entry may be hand-written, or the folder a link. So an
    entry whose base path ends in the name of the folder counts too, unless there is another folder for it.
    """
    base = repo.layout.model(model)

    def serves_from(one: Entry) -> bool:
        if one.name == model:
            return True
        seen = folder_of(repo, one.base_path)
        name = posixpath.basename(posixpath.normpath(one.base_path))
        if seen == base or (name == base.name and (seen is None or not seen.is_dir())):
            return True
        other = seen or repo.layout.models / name
        linked = is_behind_link(repo, other) and base.exists() and other.exists()
        return linked and other.samefile(base)

    return tuple(one for one in models(config) if serves_from(one))


def refuse_deployment(repo: Repository, model: str, version: int) -> None:
    """Refuse to restore a version if servers would load it as soon as its directory is there.

    Raises:
        ConfigInvalid: An entry's policy is `latest` or `all`, and the version would be among those it serves.
        NotConverged: Servers may still follow such a policy; see `refuse_followers`.
    """
    refuse_followers(read_snapshot(repo, model))
    on_disk = {*(names_on_disk(repo, model) or ()), version}
    for one in entries_of(repo, read_config(repo).config, model):
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


def _by_configs(repo: Repository, now: Snapshot) -> Iterator[tuple[int, str]]:
    on_disk = dict.fromkeys((*now.published, *now.unmanaged))
    yield from _by_config(repo, now.config, now.model, on_disk, said="models.config")
    text = last_text(repo)
    if text is None or text == render(now.config):
        return
    try:
        last = parse(text, source=str(repo.layout.last_config))
    except ConfigInvalid:
        return  # the copy is only a copy
    said = "the models.config that servingrepo wrote last"
    yield from _by_config(repo, last, now.model, on_disk, said=said)


def _by_config(
    repo: Repository, config: ModelConfig, model: str, on_disk: Mapping[int, object], *, said: str
) -> Iterator[tuple[int, str]]:
    for one in entries_of(repo, config, model):
        kept = served_by_policy(one, on_disk.keys())
        named = "" if one.name == model else f" as {one.name}"
        last = "" if said == "models.config" else f" by {said}"
        for version in sorted(kept):
            if one.policy != "specific":
                yield version, f"served{named} under the policy {one.policy}{last}"
            elif version == max(kept):
                yield version, f"served{named}{last}"
            else:
                yield version, f"pinned{named}{last}"
        for label, version in sorted(one.labels.items()):
            yield version, f"labelled {label}{named}{last}"


def _previous(
    repo: Repository, now: Snapshot, foreseen: Foreseen | None
) -> Iterator[tuple[int, str]]:
    """Yield the version that `rollback` goes to now.

    For a hand-written entry with a policy such as `latest`, yield also the version for the case that it was pinned.
    """
    reason = "what rollback goes to"
    good = set(now.good)
    if foreseen is not None and foreseen.move.before != foreseen.move.after:
        past = history.moves_backwards(repo.layout.history, model=now.model)
        previous = history.served_before(
            chain([foreseen.move], past),
            current=foreseen.move.served_after,
            usable=lambda version: version in good,
        )
        if previous is not None:
            yield previous, reason
        return
    with suppress(NothingToRollBack, NoSuchVersion):
        yield previous_version(repo, now), reason
    on_disk = (*now.published, *now.unmanaged)
    for one in entries_of(repo, now.config, now.model):
        if one.policy != "specific":
            found = history.served_before(
                history.moves_backwards(repo.layout.history, model=now.model),
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
    for version in versions:
        if repo.layout.version(model, version).is_symlink():
            yield version, "it is a link now, and not the published directory"


def _in_use(repo: Repository, model: str, versions: Collection[int]) -> Iterator[tuple[int, str]]:
    for version in versions:
        if is_used(repo, model, version):
            yield version, "in use: another command verifies or smoke-tests it"


def _by_intents(repo: Repository, model: str) -> Iterator[tuple[int, str]]:
    for intent, _ in journal.read_all(repo.layout.journal):
        if intent.model != model:
            continue
        event = intent.event
        named = {intent.version} if event is None else {*event.before, *event.after, event.version}
        for version in sorted(one for one in named if one is not None):
            yield version, f"named by the unfinished {intent.command} {intent.txid}"


def labels_ever(repo: Repository, model: str) -> dict[int, tuple[str, ...]]:
    """Return for each version the labels that it has now or, according to history, had at any time."""
    found: dict[int, set[str]] = {}
    for event in history.read(repo.layout.history, model=model):
        for labels in (event.labels_before, event.labels_after):
            for label, version in labels.items():
                found.setdefault(version, set()).add(label)
    for one in entries_of(repo, read_config(repo).config, model):
        for label, version in one.labels.items():
            found.setdefault(version, set()).add(label)
    return {version: tuple(sorted(labels)) for version, labels in found.items()}
