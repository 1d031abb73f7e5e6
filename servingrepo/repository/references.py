"""The one way to name a version: NAME, NAME@7, NAME@latest, NAME@served, NAME@previous, NAME@label:stable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import BadReference, NoSuchVersion, NothingToRollBack
from servingrepo.modelconfig import check_name, entry, parse_version
from servingrepo.repository import history
from servingrepo.repository.repository import Repository, need_state, published_versions
from servingrepo.repository.served import (
    base_path_elsewhere,
    pins,
    read_config,
    say_elsewhere,
    served_version,
)
from servingrepo.repository.trash import trashed_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["default", "number", "latest", "served", "previous", "label"]
FORMS = "NAME, NAME@7, NAME@latest, NAME@served, NAME@previous, NAME@label:stable"


class Reference(msgspec.Struct, frozen=True):
    """What a reference's text says; `kind` "default" is a bare NAME."""

    model: str
    kind: Kind
    number: int = 0
    label: str = ""


def parse_reference(text: str) -> Reference:
    """Read a reference.

    Raises:
        BadReference: It has another form.
        BadName: The model's name is not allowed.
        BadVersionNumber: The number is not one.
    """
    name, at, selector = text.partition("@")
    check_name(name)
    return Reference(model=name, kind="default") if not at else selector_of(name, selector)


def selector_of(model: str, selector: str) -> Reference:
    """Read what stands behind the @, which `rollback --to` takes alone."""
    if selector == "latest":
        return Reference(model=model, kind="latest")
    if selector == "served":
        return Reference(model=model, kind="served")
    if selector == "previous":
        return Reference(model=model, kind="previous")
    kind, colon, label = selector.partition(":")
    if colon and kind == "label" and label:
        return Reference(model=model, kind="label", label=label)
    if selector[:1].isdigit() or selector[:1] in {"-", "+"}:
        return Reference(model=model, kind="number", number=parse_version(selector))
    raise BadReference(f"cannot read the reference {model}@{selector}", hint=f"write {FORMS}")


def resolve(repo: Repository, reference: Reference, *, bare: Kind = "served") -> int:
    """Return the version number that a reference means now; it need not be whole.

    Args:
        repo: The repository.
        reference: What to look up.
        bare: What a bare NAME means to the command: its served version, falling back to the latest.

    Raises:
        NoSuchVersion: There is none of that kind.
        NothingToRollBack: `@previous`, and history knows no earlier good version.
    """
    model = reference.model
    need_state(repo, model)
    kind = reference.kind
    if kind == "default":
        served = _served_here(repo, model) if bare == "served" else None
        return served if served is not None else latest_version(repo, model)
    if kind == "number":
        return reference.number
    if kind == "latest":
        return latest_version(repo, model)
    if kind == "previous":
        return previous_version(repo, model)
    return _by_config(repo, reference)


def _served_here(repo: Repository, model: str) -> int | None:
    """Return the served version if it is one of this repository's: not one that is elsewhere."""
    config = read_config(repo).config
    return None if base_path_elsewhere(repo, config, model) else served_version(repo, config, model)


def _by_config(repo: Repository, reference: Reference) -> int:
    """Return what models.config says is served, or has a label."""
    model = reference.model
    config = read_config(repo).config
    if there := base_path_elsewhere(repo, config, model):
        raise NoSuchVersion(
            say_elsewhere(repo, model, there),
            hint=f"servingrepo show {model} lists what this repository has of that name: name a number",
        )
    if reference.kind == "served":
        served = served_version(repo, config, model)
        if served is None:
            raise NoSuchVersion(
                f"no version of {model} is served", hint=f"servingrepo serve {model}@latest"
            )
        return served
    found = entry(config, model)
    labels = found.labels if found is not None else {}
    if reference.label not in labels:
        listed = ", ".join(sorted(labels)) or "none"
        raise NoSuchVersion(
            f"{model} has no label {reference.label}", hint=f"labels of {model}: {listed}"
        )
    return labels[reference.label]


def latest_version(repo: Repository, model: str) -> int:
    """Return the highest published version that is not marked bad.

    Raises:
        NoSuchVersion: There is none.
    """
    state = need_state(repo, model)
    good = [number for number in published_versions(repo, model) if number not in state.bad]
    if not good:
        raise NoSuchVersion(
            f"{model} has no good version on disk",
            hint=f"servingrepo promote RUN --model {model}",
        )
    return good[-1]


def previous_version(repo: Repository, model: str) -> int:
    """Return the version served before the one served now, according to history, that is usable.

    What a policy such as `latest` serves may be unknown to history: then it is the next lower one on disk.

    Raises:
        NothingToRollBack: There is none.
    """
    state = need_state(repo, model)
    config = read_config(repo).config
    on_disk = set(published_versions(repo, model))
    current = served_version(repo, config, model)
    found = history.served_before(
        history.moves_backwards(repo.layout.history, model=model),
        current=current,
        usable=lambda version: version in on_disk and version not in state.bad,
    )
    pinned = current is None or current in pins(config, model)
    if not pinned and (found is None or not _was_served(repo, model, current)):
        lower = (version for version in on_disk - state.bad.keys() if version < (current or 0))
        found = max(lower, default=found)
    if found is None:
        trashed = {one.version for one in trashed_versions(repo.layout, model)}
        restorable = history.previous_served(
            history.read(repo.layout.history, model=model),
            current=current,
            usable=lambda version: version in trashed and version not in state.bad,
        )
        good = sorted(on_disk - state.bad.keys() - {current})
        now = "nothing is served" if current is None else f"{current} is served"
        raise NothingToRollBack(
            f"history knows no version of {model} that was served before, is on disk and is not marked "
            f"bad; {now}",
            hint=f"{model}@{restorable}, served before, is in the trash: servingrepo restore "
            f"{model}@{restorable}, then servingrepo rollback {model}"
            if restorable is not None
            else _others(model, good=good, bad=sorted(on_disk & state.bad.keys())),
        )
    return found


def _was_served(repo: Repository, model: str, version: int | None) -> bool:
    moves = history.moves_backwards(repo.layout.history, model=model)
    return any(version in {move.served_after, move.served_before} for move in moves)


def _others(model: str, *, good: Sequence[int], bad: Sequence[int]) -> str:
    """Say what may be served where history knows nothing to go back to."""
    if good:
        listed = ", ".join(map(str, good))
        return f"name one: servingrepo rollback {model} --to {good[-1]}; other good versions on disk: {listed}"
    marked = f", or servingrepo mark-bad {model}@{bad[-1]} --clear" if bad else ""
    return (
        f"there is no other good version on disk: promote a good run{marked}; servingrepo unserve {model} "
        "serves none"
    )
