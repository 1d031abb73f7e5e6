"""References to versions: NAME, NAME@7, NAME@latest, NAME@served, NAME@previous, NAME@label:stable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from servingrepo.errors import BadReference, NoSuchVersion, NothingToRollBack
from servingrepo.modelconfig import check_name, parse_version
from servingrepo.repository import history
from servingrepo.repository.config import say_elsewhere
from servingrepo.repository.records import ADOPTED
from servingrepo.repository.repository import (
    Repository,
    load_head,
    load_record,
    need_state,
    quick_differences,
)
from servingrepo.repository.snapshot import Snapshot, read_snapshot
from servingrepo.repository.trash import trashed_versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from servingrepo.repository.history import Move, Past

Kind = Literal["default", "number", "latest", "served", "previous", "label"]
FORMS = "NAME, NAME@7, NAME@latest, NAME@served, NAME@previous, NAME@label:stable"


class Reference(msgspec.Struct, frozen=True):
    """A parsed reference; `kind` "default" is a bare NAME."""

    model: str
    kind: Kind
    number: int = 0
    label: str = ""


def parse_reference(text: str) -> Reference:
    """Read a reference.

    Raises:
        BadReference: It has another form.
        BadName: The model's name is not allowed.
        BadVersionNumber: The number is no version number.
    """
    name, at, selector = text.partition("@")
    check_name(name)
    return Reference(model=name, kind="default") if not at else selector_of(name, selector)


def selector_of(model: str, selector: str) -> Reference:
    """Read the part behind the @; `rollback --to` takes this part alone."""
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
    """Return the version number that a reference means now. The version may be damaged or missing.

    Args:
        repo: The repository.
        reference: The reference.
        bare: What a bare NAME means to the command: by default its served version, and the latest if none is served.

    Raises:
        NoSuchVersion: There is no version of that kind.
        NothingToRollBack: `@previous`, and history knows no earlier good version.
    """
    need_state(repo, reference.model)
    if reference.kind == "number":
        return reference.number
    now = read_snapshot(repo, reference.model)
    if reference.kind == "default":
        served = now.top if bare == "served" and not now.elsewhere else None
        return served if served is not None else latest_version(now)
    if reference.kind == "latest":
        return latest_version(now)
    if reference.kind == "previous":
        return previous_version(repo, now)
    return _by_config(repo, now, reference)


def _by_config(repo: Repository, now: Snapshot, reference: Reference) -> int:
    """Return the version that models.config serves or labels."""
    model = now.model
    if now.elsewhere:
        raise NoSuchVersion(
            say_elsewhere(repo, model, now.elsewhere),
            hint=f"servingrepo show {model} lists the versions that this repository has of that name: give a number",
        )
    if reference.kind == "served":
        if now.top is None:
            raise NoSuchVersion(
                f"no version of {model} is served", hint=f"servingrepo serve {model}@latest"
            )
        return now.top
    if reference.label not in now.labels:
        listed = ", ".join(sorted(now.labels)) or "none"
        raise NoSuchVersion(
            f"{model} has no label {reference.label}", hint=f"labels of {model}: {listed}"
        )
    return now.labels[reference.label]


def latest_version(now: Snapshot) -> int:
    """Return the highest published version that is not marked bad.

    Raises:
        NoSuchVersion: There is none.
    """
    if not now.good:
        raise NoSuchVersion(
            f"{now.model} has no good version on disk",
            hint=f"servingrepo promote RUN --model {now.model}",
        )
    return now.good[-1]


class Previous(msgspec.Struct, frozen=True):
    """The version that a rollback goes to. `by_number`: history knows none; this is the next lower adopted one."""

    version: int
    by_number: bool = False


def previous_version(repo: Repository, now: Snapshot, *, past: Past | None = None) -> int:
    """Return the version that a rollback goes to; see `find_previous`."""
    return find_previous(repo, now, past=past).version


def find_previous(repo: Repository, now: Snapshot, *, past: Past | None = None) -> Previous:
    """Return the usable version that was served before the present one, according to history.

    A caller that asks about many models gives their `past`, so that the history is read once for all of them.

    History may not know a version that a policy such as `latest` serves. Then it is the next lower one on disk. Of an
    adopted model history knows nothing from before: then it is the next lower adopted version that is whole.

    Raises:
        NothingToRollBack: There is none.
    """
    model, current, good = now.model, now.top, set(now.good)
    past = past or history.Past(repo.layout.history, (model,))
    found = history.served_before(
        past.moves(model),
        current=current,
        usable=lambda version: version in good,
    )
    pinned = current is None or current in now.pins
    if not pinned and (found is None or not _serve(past.moves(model), current)):
        lower = (version for version in good if version < (current or 0))
        found = max(lower, default=found)
    if found is None and (lower_one := _next_lower_adopted(repo, now)) is not None:
        return Previous(lower_one, by_number=True)
    if found is None:
        trashed = {one.version for one in trashed_versions(repo.layout, model)}
        restorable = history.served_before(
            past.moves(model),
            current=current,
            usable=lambda version: version in trashed and version not in now.bad,
        )
        others = sorted(good - {current})
        served = "it serves nothing" if current is None else f"it serves {current}"
        raise NothingToRollBack(
            f"{model} has no earlier good version to go back to; {served}",
            hint=f"{model}@{restorable}, served before, is in the trash: servingrepo restore "
            f"{model}@{restorable}, then servingrepo rollback {model}"
            if restorable is not None
            else _others(model, good=others, bad=sorted(now.bad.keys() & set(now.published))),
        )
    return Previous(found)


def _next_lower_adopted(repo: Repository, now: Snapshot) -> int | None:
    """Return the highest good adopted version below the served one whose files have the names and sizes on record."""
    for version in reversed([one for one in now.good if now.top is not None and one < now.top]):
        head = load_head(repo, now.model, version)
        if head is None or head.source.kind != ADOPTED:
            continue
        record = load_record(repo, now.model, version)
        if record is not None and not quick_differences(repo, record):
            return version
    return None


def was_served(repo: Repository, model: str, version: int | None) -> bool:
    """Tell whether unlabelled clients got a version at any time, according to history."""
    return _serve(history.moves_backwards(repo.layout.history, model=model), version)


def _serve(moves: Iterable[Move], version: int | None) -> bool:
    """Tell whether a version was served after or before one of these moves."""
    return any(version in {move.served_after, move.served_before} for move in moves)


def _others(model: str, *, good: Sequence[int], bad: Sequence[int]) -> str:
    """Say which versions may be served if history knows none to go back to."""
    if good:
        listed = ", ".join(map(str, good))
        return f"name one: servingrepo rollback {model} --to {good[-1]}; other good versions on disk: {listed}"
    marked = f", or servingrepo mark-bad {model}@{bad[-1]} --clear" if bad else ""
    return (
        f"there is no other good version on disk: promote a good run{marked}; servingrepo unserve {model} "
        "serves none"
    )
