"""What a repository says, in a form that two runs can be compared by: contents, not numbers or times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from servingrepo.modelconfig import Entry, ModelConfig, Stamp, models
from servingrepo.repository import history
from servingrepo.repository.config import folder_of, last_text, read_config
from servingrepo.repository.journal import UNREADABLE
from servingrepo.repository.listing import list_models
from servingrepo.repository.repository import (
    Repository,
    load_record,
    load_state,
    model_names,
    names_on_disk,
    need_state,
    open_repository,
    record_numbers,
)
from servingrepo.repository.trash import find_trashed, trashed_versions
from servingrepo.repository.verification import compare_with_record
from servingrepo.storage.hashing import content_digest, hash_tree


def state_of(root: Path) -> dict[str, Any] | None:
    """Return the state by content: numbers may differ between runs, since one may be burnt; None: no state yet."""
    if not (root / ".servingrepo" / "format.json").exists():
        return None
    repo = open_repository(root)
    places = {one.name: _place(repo, one) for one in models(read_config(repo).config)}

    def content(model: str, version: int) -> str:
        """Return the digest on record; of what is unmanaged the bytes themselves, where it is served from."""
        record = load_record(repo, model, version)
        if record is not None:
            return record.digest
        place = places.get(model, repo.layout.model(model)) / str(version)
        return content_digest(hash_tree(place)) if place.is_dir() else f"no record of {version}"

    def proven(model: str, version: int) -> bool:
        record = load_record(repo, model, version)
        return record is not None and bool(record.proofs)

    return {
        "models": {
            row.model: {
                "pinned": [content(row.model, one) for one in row.pinned],
                "labels": {label: content(row.model, at) for label, at in row.labels.items()},
                "published": [content(row.model, one) for one in row.versions],
                "proven": [one for one in row.versions if proven(row.model, one)],
                "trashed": [content(row.model, one) for one in row.trash],
                "bad": [content(row.model, one) for one in row.bad],
                "held": row.held,
                "ours": row.ours,
            }
            for row in list_models(repo)
        },
        "server_root": repo.server_root,
        "paths": dict(repo.layout.paths),
        "unedited": read_config(repo).stamp is Stamp.UNEDITED,
    }


def _place(repo: Repository, one: Entry) -> Path:
    """Return where the versions of an entry lie on this disk: an unmanaged model may have another base path."""
    return folder_of(repo, one.base_path) or repo.layout.model(one.name)


def served(state: dict[str, Any] | None) -> dict[str, list[str]]:
    """Return what a state serves, by model."""
    models_of = state["models"] if state is not None else {}
    return {name: one["pinned"] for name, one in models_of.items() if one["pinned"]}


def served_is_whole(root: Path) -> list[str]:
    """Return what is wrong with what servers would serve right now, whoever died a moment ago."""
    if state_of(root) is None:
        return []
    repo = open_repository(root)
    problems = []
    for one in models(read_config(repo).config):
        if load_state(repo, one.name) is not None:  # nothing is promised of what is not ours yet
            for version in one.versions:
                problems += _damage(repo, one.name, version)
    return problems


def leftovers(root: Path) -> list[str]:
    """Return intents, staging directories and temporary files that nobody will clean up."""
    own, shelf = root / ".servingrepo", root / "models"
    return [
        # One that nobody can read was set aside, and stays until somebody has looked at it.
        *(
            f"intent {path.name}"
            for path in own.glob("journal/*")
            if not path.name.endswith(UNREADABLE)
        ),
        *(f"staging {path}" for path in shelf.rglob(".staging/*")),
        *(f"half deleted {path}" for path in shelf.rglob(".trash/.*")),
        *(f"temporary {path}" for path in root.rglob(".*.tmp")),
    ]


def broken_promises(root: Path, *, history_before: bytes) -> list[str]:
    """Return every invariant of a recovered repository that does not hold."""
    problems = leftovers(root)
    repo = open_repository(root)
    config = read_config(repo)
    for model in model_names(repo):
        numbers = set(record_numbers(repo, model))
        on_disk = names_on_disk(repo, model) or {}
        problems += [f"{model}/{one} has no record" for one in on_disk.keys() - numbers]
        trash = [one.version for one in trashed_versions(repo.layout, model)]
        known = {*on_disk, *trash}
        problems += [f"the record {model}@{one} has no version" for one in numbers - known]
        problems += [f"{model}@{one} in the trash has no record" for one in {*trash} - numbers]
        if len({*on_disk} | {*trash}) != len(on_disk) + len(trash):
            problems.append(f"{model}: {trash} in the trash, {list(on_disk)} on disk: one twice")
        for number in sorted(numbers & on_disk.keys()):
            problems += _damage(repo, model, number)
        for number in trash:  # compared where it lies: it must be whole to be called restorable
            found = _bytes_in_trash(repo, model, number)
            problems += [f"{model}@{number} in the trash: {one}" for one in found]
        highest = max([0, *known])
        if need_state(repo, model).highest < highest:
            problems.append(f"{model}: {highest} could be given away again")
    for one in models(config.config):
        if (
            config.stamp is Stamp.UNEDITED
        ):  # of an edit by hand history knows only when it is taken over
            problems += _about_entry(repo, one)
    problems += _about_places(repo, config.config)
    if config.stamp is Stamp.UNEDITED and last_text(repo) != config.text:
        problems.append("the copy of models.config is another one")
    return [*problems, *_about_history(repo, history_before)]


def _about_places(repo: Repository, config: ModelConfig) -> list[str]:
    left = repo.server_roots_before
    ours = model_names(repo)
    return [
        *([f"the marker still says {left}"] if left else []),
        *(
            f"{one.name}: base path {one.base_path} in {repo.server_root}"
            for one in models(config)
            if one.base_path != repo.base_path(one.name) and one.name in ours
        ),
        *(
            f"{one.name} is not ours, and has a path"
            for one in models(config)
            if one.name in repo.layout.paths and one.name not in ours
        ),
    ]


def _damage(repo: Repository, model: str, version: int) -> list[str]:
    if load_record(repo, model, version) is None:
        return [f"{model}@{version} is served but has no record"]
    path = repo.layout.version(model, version)
    if not path.is_dir():
        return [f"{model}@{version} is served but is not there"]
    return [f"{model}@{version}: {one}" for one in _differences(repo, model, version, path)]


def _bytes_in_trash(repo: Repository, model: str, version: int) -> list[str]:
    found = find_trashed(repo.layout, model, version)
    return _differences(repo, model, version, Path(found.path)) if found is not None else []


def _differences(repo: Repository, model: str, version: int, path: Path) -> list[str]:
    """Compare every byte; what the bytes mean was proven when the record was written."""
    record = load_record(repo, model, version)
    return compare_with_record(path, record).lines() if record is not None else []


def _about_entry(repo: Repository, entry: Entry) -> list[str]:
    name, wanted = entry.name, {*entry.versions, *entry.labels.values()}
    gone = sorted(one for one in wanted if not (_place(repo, entry) / str(one)).is_dir())
    problems = [f"{name}@{one} is pinned and is not there" for one in gone]
    moved = [one.after for one in history.read(repo.layout.history, model=name) if one.after]
    if not moved or moved[-1] != entry.versions:
        problems.append(f"{name}: history ends with {moved[-1:]}, {entry.versions} is served")
    return problems


def _about_history(repo: Repository, before: bytes) -> list[str]:
    path = repo.layout.history
    now = path.read_bytes() if path.exists() else b""
    problems = []
    if not now.startswith(before):
        problems.append("history lost lines")
    if now and not now.endswith(b"\n"):
        problems.append("history ends in a torn line")
    try:
        lines = [json.loads(line) for line in now.splitlines()]
    except ValueError as error:
        return [*problems, f"a line of history is no event: {error}"]
    if len({line["id"] for line in lines}) != len(lines):
        problems.append("history says one thing twice")
    if any("schema" not in line for line in lines):
        problems.append("a line of history has no schema")
    return problems
