"""What can be adopted, and what cannot and why: facts of config and disk, and a plan for each model as a pure value.

No file of a version is read here: that comes after the plan, and `without` takes what is damaged out of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import (
    BadName,
    BadVersionNumber,
    ConfigInvalid,
    NoSavedModel,
    RepositoryDamaged,
    ServingRepoError,
    StorageFailed,
)
from servingrepo.modelconfig import (
    Entry,
    ModelConfig,
    check_name,
    models,
    pin,
    same_base_path,
    version_of_entry,
)
from servingrepo.repository.config import (
    MODEL_FILES,
    check_config,
    folder_of,
    served_by_policy,
    why_not_there,
)
from servingrepo.repository.layout import overlaps
from servingrepo.repository.records import ModelState
from servingrepo.repository.repository import (
    link_on_way,
    load_state,
    model_names,
    record_numbers,
    version_names,
)
from servingrepo.storage.disk import storage_errors
from servingrepo.texts import some

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from servingrepo.repository.repository import Repository

Becomes = Literal["kept", "pinned", "new", "none"]
"""What becomes of a model's entry: it is kept, its policy becomes pins, it is new, or there is none."""


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """A model, or a version of it by its name on disk, that stays unmanaged, and why.

    `slug` is that of the error with which a model that was named is refused.
    """

    model: str
    version: str = ""
    slug: str
    reason: str

    def __str__(self) -> str:
        """Return the line for people."""
        name = f"{self.model}@{self.version}" if self.version else self.model
        return f"{name}: {self.reason}"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One model as config and disk have it.

    Attributes:
        model: Its name.
        path: Where its versions lie, below the models directory.
        entry: Its entry in the config; None if it has none.
        names: The names below its base path that TF Serving takes for versions, by number.
        recorded: The versions that have a record.
        state: Its state; None if it is not ours.
        wrong: Why it cannot be adopted, whatever its versions are; None if nothing is wrong.
        flat: Whether a SavedModel lies directly below its base path.
        writable: Whether this user may write there.
    """

    model: str
    path: str
    entry: Entry | None
    names: Mapping[int, tuple[str, ...]] = {}
    recorded: frozenset[int] = frozenset()
    state: ModelState | None = None
    wrong: Left | None = None
    flat: bool = False
    writable: bool = True


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The adoption of one model.

    Attributes:
        model: Its name.
        path: Where its versions lie, below the models directory.
        base_path: Where servers see them.
        versions: The versions that it takes, ascending.
        pins: The versions that models.config serves now, and pins afterwards; empty without an entry.
        labels: The labels of its entry.
        policy: The policy that lets the disk decide now: `latest`, `all` or `default`; empty if there is none.
        becomes: What becomes of its entry.
        recorded: The versions that have a record already.
        highest: The highest number on disk, in whatever spelling.
        new: Whether the model is not ours yet.
        left: Its versions that stay unmanaged.
        notes: What to know of it.
    """

    model: str
    path: str
    base_path: str
    versions: tuple[int, ...]
    pins: tuple[int, ...]
    labels: dict[str, int] = {}
    policy: str = ""
    becomes: Becomes
    recorded: frozenset[int] = frozenset()
    highest: int
    new: bool
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether there is anything to adopt."""
        return bool(self.versions) or self.becomes in {"pinned", "new"}


def find_models(repo: Repository, config: ModelConfig) -> tuple[Found, ...]:
    """Return every model that the config, the records or the disk has, by name."""
    entries: dict[str, Entry] = {}
    for one in models(config):
        entries.setdefault(one.name, one)
    wrong = _wrong_entries(repo, config)
    ours = model_names(repo)
    taken = {path_below(repo, one.base_path) or one.name for one in entries.values()}
    taken |= {repo.layout.path(name) for name in ours}
    names = {*entries, *ours, *_folders(repo, taken)}
    return tuple(_found(repo, name, entries.get(name), wrong.get(name)) for name in sorted(names))


def plan_model(
    found: Found, config: ModelConfig, *, server_root: str, fresh: bool
) -> ModelPlan | Left:
    """Plan the adoption of one model, or say why it stays unmanaged as a whole.

    Args:
        found: The model.
        config: The config that has its entry.
        server_root: Where servers see the models directory.
        fresh: Whether nothing is known to be served by the config, so that a model without an entry gets one that
            pins its highest version: a server that was started without a config serves that.
    """
    if found.wrong is not None:
        return found.wrong
    versions, left = _by_name(found)
    entry, policy = found.entry, ""
    becomes: Becomes = "none"
    pins: tuple[int, ...] = ()
    if entry is not None:
        pins = tuple(sorted(served_by_policy(entry, found.names.keys())))
        policy = "" if entry.policy == "specific" else entry.policy
        becomes = "pinned" if policy else "kept"
    elif fresh and found.state is None and found.names:
        pins, policy, becomes = (max(found.names),), "default", "new"
    plan = ModelPlan(
        model=found.model,
        path=found.path,
        base_path=entry.base_path if entry is not None else f"{server_root}/{found.path}",
        versions=versions,
        pins=pins,
        labels=entry.labels if entry is not None else {},
        policy=policy,
        becomes=becomes,
        recorded=found.recorded,
        highest=max([0, *found.names]),
        new=found.state is None,
        left=left,
        notes=tuple(_notes(found)),
    )
    try:
        pinned(config, plan)
    except ServingRepoError as error:
        return _left(found.model, error, error.message)
    return without(plan, ())


def pinned(config: ModelConfig, plan: ModelPlan) -> ModelConfig:
    """Return the config in which a model's entry is as the plan says.

    Raises:
        ConfigInvalid, BadVersionNumber: A server would refuse the pins with the entry's labels.
    """
    if plan.becomes not in {"pinned", "new"}:
        return config
    return pin(config, name=plan.model, base_path=plan.base_path, versions=plan.pins)


def new_paths(repo: Repository, plans: Sequence[ModelPlan]) -> dict[str, str]:
    """Return the models whose versions are not where this repository would look for them, each with its path."""
    return {one.model: one.path for one in plans if one.path != repo.layout.path(one.model)}


def without(plan: ModelPlan, left: tuple[Left, ...]) -> ModelPlan | Left:
    """Return the plan without some versions. A model whose served version is among them stays unmanaged."""
    names = {one.version for one in left}
    plan = msgspec.structs.replace(
        plan,
        versions=tuple(one for one in plan.versions if str(one) not in names),
        left=(*plan.left, *left),
    )
    lost = sorted({*plan.pins, *plan.labels.values()} - {*plan.versions, *plan.recorded})
    if lost:
        why = next((one for one in plan.left if version_of_entry(one.version) == lost[-1]), None)
        reason = why.reason if why is not None else "it is not on disk"
        return Left(
            model=plan.model,
            slug=why.slug if why is not None else ConfigInvalid.slug,
            reason=f"its served version {lost[-1]} cannot be adopted: {reason}",
        )
    if plan.new and not plan.versions:
        why = plan.left[-1] if plan.left else None
        reason = (
            f"none of its versions can be adopted: {why}"
            if why is not None
            else "it has no version: a SavedModel has to lie in a directory with a number"
        )
        slug = why.slug if why is not None else NoSavedModel.slug
        return Left(model=plan.model, slug=slug, reason=reason)
    return plan


def _wrong_entries(repo: Repository, config: ModelConfig) -> dict[str, Left]:
    """Return the entries that cannot be adopted, by model, each with the first reason."""
    wrong: dict[str, Left] = {}
    entries = models(config)
    for one in entries:
        try:
            check_name(one.name)
        except BadName as error:
            reason = f"{error.message}; {error.hint}"
            wrong.setdefault(one.name, _left(one.name, error, reason))
    for finding in check_config(repo, config):
        if finding.severity == "error":
            hint = f" ({finding.hint})" if finding.hint else ""
            reason = f"its entry is not one that TensorFlow Serving serves: {finding.field}: {finding.message}{hint}"
            left = Left(model=finding.model, slug=ConfigInvalid.slug, reason=reason)
            wrong.setdefault(finding.model, left)
    reasons = [
        *((one.name, why_not_there(repo, one)) for one in entries),
        *_shared(entries),
        *_crossing(repo, entries),
    ]
    for name, reason in reasons:
        if reason:
            wrong.setdefault(name, Left(model=name, slug=ConfigInvalid.slug, reason=reason))
    return wrong


def _shared(entries: tuple[Entry, ...]) -> Iterator[tuple[str, str]]:
    """Yield the models whose base path others have too, or that lies within another's, with the reason."""
    paths = [(one.name, f"{same_base_path(one.base_path).rstrip('/')}/") for one in entries]
    for name, path in paths:
        others = [
            other
            for other, place in paths
            if other != name and (place.startswith(path) or path.startswith(place))
        ]
        if others:
            yield (
                name,
                f"its base path {path[:-1]} is also that of {some(others)}, or one is within the other",
            )


def _crossing(repo: Repository, entries: tuple[Entry, ...]) -> Iterator[tuple[str, str]]:
    """Yield the models that are not ours yet and whose folder is another model's, or within it, with the reason."""
    ours = {name: repo.layout.path(name) for name in (*model_names(repo), *repo.layout.paths)}
    below = {one.name: path_below(repo, one.base_path) or one.name for one in entries}
    paths = below | ours
    for pair in overlaps(paths):
        if all(paths[name] == name for name in pair):
            continue  # two folders whose names differ only in case
        for name, other in (pair, pair[::-1]):
            if name not in ours:
                yield (
                    name,
                    f"its folder {paths[name]} is also {paths[other]}, that of {other}, or one is within the other",
                )


def _folders(repo: Repository, taken: Collection[str]) -> Iterator[str]:
    """Yield the folders beside models.config that look like models and are no part of a path that is taken."""
    with storage_errors("read", repo.layout.models):
        try:
            folders = sorted(path for path in repo.layout.models.iterdir() if path.is_dir())
        except FileNotFoundError:
            return
    for folder in folders:
        name = folder.name
        if name[0] == "." or any(f"{path}/".startswith(f"{name}/") for path in taken):
            continue
        try:
            if version_names(folder) or _is_flat(folder):
                yield name
        except (OSError, StorageFailed):
            yield name  # `_found` says that it cannot be read


def _found(repo: Repository, model: str, entry: Entry | None, wrong: Left | None) -> Found:
    if wrong is not None:
        return Found(model=model, path="", entry=entry, wrong=wrong)
    path = path_below(repo, entry.base_path) if entry is not None else None
    if path is None:
        path = repo.layout.path(model)
    base = repo.layout.models / path
    found = Found(model=model, path=path, entry=entry)
    try:
        check_name(model)
        refuse_links_to(repo, base)
        with storage_errors("read", base):
            names, flat = version_names(base) or {}, _is_flat(base)
    except BadName as error:
        reason = f"{error.message}; {error.hint}"
        return msgspec.structs.replace(found, wrong=_left(model, error, reason))
    except ServingRepoError as error:
        return msgspec.structs.replace(found, wrong=_left(model, error, error.message))
    return msgspec.structs.replace(
        found,
        names=names,
        recorded=frozenset(record_numbers(repo, model)),
        state=load_state(repo, model),
        flat=flat,
        writable=not base.is_dir() or os.access(base, os.W_OK, effective_ids=True),
    )


def refuse_links_to(repo: Repository, base: Path) -> None:
    """Refuse a model whose directory is behind a link: servers that mount the models directory may not follow it.

    Raises:
        RepositoryDamaged: A part of the path below the models directory is a link.
    """
    with storage_errors("read", base):
        if (link := link_on_way(repo, base)) is not None:
            raise RepositoryDamaged(
                f"{link} is a link, to {link.readlink()}: servingrepo manages no model behind a link"
            )


def path_below(repo: Repository, base_path: str) -> str | None:
    """Return the path below the models directory that a base path leads to; None if it leads elsewhere."""
    folder = folder_of(repo, base_path)
    return folder.relative_to(repo.layout.models).as_posix() if folder is not None else None


def _is_flat(base: Path) -> bool:
    return any((base / name).exists() for name in MODEL_FILES)


def _left(model: str, error: ServingRepoError, reason: str, *, version: str = "") -> Left:
    return Left(model=model, version=version, slug=error.slug, reason=reason)


def _by_name(found: Found) -> tuple[tuple[int, ...], tuple[Left, ...]]:
    """Return the versions that may be adopted by their names, and the names that may not."""
    versions: list[int] = []
    left: list[Left] = []
    for number, names in found.names.items():
        plain = str(number)
        for name in names:
            reason = ""
            if name != plain:
                reason = f"TensorFlow Serving reads {number} from it; servingrepo names a version by its plain number"
            elif number < 1:
                reason = "versions begin at 1"
            elif len(names) > 1:
                others = some([repr(one) for one in names if one != plain])
                reason = f"{others} is the same version to TensorFlow Serving: which one it serves is not certain"
            if reason:
                left.append(
                    Left(model=found.model, version=name, slug=BadVersionNumber.slug, reason=reason)
                )
            elif number not in found.recorded:
                versions.append(number)
    return tuple(sorted(versions)), tuple(left)


def _notes(found: Found) -> Iterator[str]:
    if found.flat:
        yield "a SavedModel lies directly in its directory: promote refuses the model until it is moved away"
    if not found.writable:
        yield "this user may not write to its directory: promote and prune will be refused"
