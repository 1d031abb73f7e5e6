"""Disk, config and live servers side by side, and every difference explained with what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ServingRepoError
from servingrepo.modelconfig import Entry, Stamp, models
from servingrepo.repository import journal
from servingrepo.repository.listing import summed_trash
from servingrepo.repository.repository import (
    load_record,
    load_state,
    model_names,
    versions_on_disk,
)
from servingrepo.repository.served import (
    ConfigFile,
    check_config,
    last_text,
    read_config,
    read_steadily,
)
from servingrepo.repository.trust import notes
from servingrepo.repository.verification import quick_differences
from servingrepo.rollout.switch import connect
from servingrepo.serving.deadline import Deadline
from servingrepo.serving.states import VersionStatus
from servingrepo.storage.lock import introduce

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from servingrepo.repository.repository import Repository
    from servingrepo.serving.states import Endpoint

_CALL_SECONDS = 5.0


class OnEndpoint(msgspec.Struct, frozen=True):
    """What one endpoint says of one model. `error` is set when it could not be asked."""

    endpoint: str
    available: tuple[int, ...] = ()
    others: tuple[VersionStatus, ...] = ()
    error: str = ""


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model: what is on disk, what the config pins, what each endpoint serves, and what differs."""

    model: str
    ours: bool
    on_disk: tuple[int, ...]
    foreign: tuple[int, ...]
    bad: tuple[int, ...]
    policy: str
    pinned: tuple[int, ...]
    labels: dict[str, int]
    held: str | None
    endpoints: tuple[OnEndpoint, ...]
    drift: tuple[str, ...]
    trash: tuple[int, ...] = ()
    trash_size: int = 0

    @property
    def served(self) -> int | None:
        """What models.config lets unlabelled clients get."""
        return max(self.pinned, default=None)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All models, trouble that belongs to none of them, and what to type next.

    `notes` is what somebody should look at some day: who else may write here, intents that nobody can read.
    """

    models: tuple[ModelStatus, ...]
    config: str
    problems: tuple[str, ...]
    running: tuple[str, ...]
    next: str
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether disk, config and every endpoint that was asked agree."""
        return not self.problems and not any(model.drift for model in self.models)


def read_status(
    repo: Repository, *, model: str | None = None, endpoints: Sequence[Endpoint] = ()
) -> Status:
    """Look at everything once; nothing is changed and no lock is taken.

    Raises:
        ConfigInvalid: models.config is no model config.
    """
    in_file = [one.name for one in models(read_config(repo).config)]
    names = sorted({*model_names(repo), *in_file}) if model is None else [model]
    asked = {str(endpoint): _ask(endpoint, names) for endpoint in endpoints}
    return read_steadily(
        repo, lambda file: _look(repo, file, names, asked, model=model, endpoints=endpoints)
    )


def _look(
    repo: Repository,
    file: ConfigFile,
    names: Sequence[str],
    asked: Mapping[str, Mapping[str, OnEndpoint]],
    *,
    model: str | None,
    endpoints: Sequence[Endpoint],
) -> Status:
    """Look at disk and config once, with what the endpoints said."""
    entries = {one.name: one for one in models(file.config)}
    rows = tuple(
        _model_status(
            repo,
            name,
            entries.get(name),
            tuple(answers[name] for answers in asked.values()),
        )
        for name in names
    )
    problems = [
        str(finding)
        for finding in check_config(repo, file.config)
        if finding.severity == "error" and (model is None or finding.model in {"", model})
    ]
    if file.stamp is not Stamp.UNEDITED:
        problems.append(f"{repo.layout.config} is {file.stamp}: servingrepo config check shows it")
    running = tuple(
        f"{intent.command} of {intent.model} by {introduce(intent.owner)}"
        for intent, alive in journal.read_all(repo.layout.journal, leave_out_unreadable=True)
        if alive and model in {None, intent.model}
    )
    if running:
        what_next = f"wait for the {running[0]}, then this command again"
    elif file.stamp is not Stamp.UNEDITED and last_text(repo) is None:
        what_next = "servingrepo config write --take-edit (takes this models.config over)"
    else:
        what_next = _what_next(rows, problems, endpoints, file.stamp)
    return Status(
        models=rows,
        config=str(repo.layout.config),
        problems=tuple(problems),
        running=running,
        next=what_next,
        notes=tuple(notes(repo)),
    )


def wait_for_agreement(
    repo: Repository,
    *,
    model: str | None,
    endpoints: Sequence[Endpoint],
    seconds: float,
) -> Status:
    """Look until everything agrees or the time is over; the last look is returned either way."""
    deadline = Deadline.after(seconds)
    while True:
        status = read_status(repo, model=model, endpoints=endpoints)
        if status.ok or deadline.passed:
            return status
        deadline.pause(0.5)


def _ask(endpoint: Endpoint, names: Sequence[str]) -> dict[str, OnEndpoint]:
    """Ask one endpoint about every model; after the first failure it is not asked again."""
    answers: dict[str, OnEndpoint] = {}
    trouble = ""
    with connect(endpoint) as client:
        for name in names:
            if not trouble:
                try:
                    states = client.status(name, timeout=_CALL_SECONDS)
                except ServingRepoError as error:
                    trouble = error.message
            if trouble:
                answers[name] = OnEndpoint(str(endpoint), error=trouble)
                continue
            answers[name] = OnEndpoint(
                str(endpoint),
                available=tuple(sorted(one.version for one in states if one.state == "AVAILABLE")),
                others=tuple(
                    one
                    for one in states
                    if one.state != "AVAILABLE" and (one.state != "END" or one.code != 0)
                ),
            )
    return answers


def _model_status(
    repo: Repository, name: str, entry: Entry | None, asked: tuple[OnEndpoint, ...]
) -> ModelStatus:
    state = load_state(repo, name)
    found = versions_on_disk(repo, name)
    on_disk = found.published if state is not None else ()
    numbers = {*found.published, *found.foreign}
    pinned = entry.versions if entry is not None else ()
    bad = tuple(sorted(state.bad)) if state is not None else ()
    trash, trash_size = summed_trash(repo, name) if state is not None else ((), 0)
    return ModelStatus(
        model=name,
        ours=state is not None,
        on_disk=on_disk,
        foreign=tuple(sorted(numbers - set(on_disk))),
        bad=bad,
        policy=entry.policy if entry is not None else "none",
        pinned=pinned,
        labels=entry.labels if entry is not None else {},
        held=state.hold.reason or "no reason given" if state is not None and state.hold else None,
        endpoints=asked,
        drift=(
            *_damage(repo, name, sorted(set(pinned) & set(on_disk))),
            *_drift(name, entry, numbers, bad, asked, trash=trash),
        ),
        trash=trash,
        trash_size=trash_size,
    )


def _damage(repo: Repository, name: str, pinned: Sequence[int]) -> Iterator[str]:
    """Yield what is wrong with pinned versions by names and sizes; bytes are for `verify`."""
    for version in pinned:
        try:
            record = load_record(repo, name, version)
            differences = quick_differences(repo, record) if record is not None else None
        except ServingRepoError as error:
            yield f"{name}@{version}: {error.message}"
            continue
        if differences:
            listed = ", ".join(differences.lines()[:3])
            yield f"{name}@{version} is pinned but not what its record says: {listed}"


def _drift(
    name: str,
    entry: Entry | None,
    on_disk: set[int],
    bad: tuple[int, ...],
    asked: tuple[OnEndpoint, ...],
    *,
    trash: tuple[int, ...],
) -> list[str]:
    found: list[str] = []
    pinned = set(entry.versions) if entry is not None else set()
    found.extend(
        f"{name}@{version} is pinned but missing on disk"
        + (
            f": it is in the trash; servingrepo restore {name}@{version}"
            if version in trash
            else ""
        )
        for version in sorted(pinned - on_disk)
    )
    found.extend(
        f"{name}@{version} is pinned but marked bad" for version in sorted(pinned & set(bad))
    )
    for one in asked:
        if one.error:
            found.append(one.error)
            continue
        by_version = {status.version: status for status in one.others}
        if entry is not None and entry.policy != "specific":
            continue  # the disk decides then, and the check of the config says so
        found.extend(
            f"{one.endpoint}: {name}@{version} {_why_not(by_version, version)}"
            for version in sorted(pinned - set(one.available))
        )
        found.extend(
            f"{one.endpoint}: {name}@{version} is loaded but models.config does not pin it"
            for version in sorted(set(one.available) - pinned)
        )
        found.extend(
            f"{one.endpoint}: {name}@{status.version} is {status.state}, but models.config does not pin it"
            for status in one.others
            if status.version not in pinned and status.state in {"START", "LOADING"}
        )
    return found


def _why_not(by_version: Mapping[int, VersionStatus], version: int) -> str:
    status = by_version.get(version)
    if status is None:
        return "is pinned but not loaded: the server has not read this models.config"
    if status.state == "END":
        return f"failed to load: {status.error}"
    return f"is {status.state}"


def _what_next(
    rows: Sequence[ModelStatus],
    problems: Sequence[str],
    endpoints: Sequence[Endpoint],
    stamp: Stamp,
) -> str:
    """Say what to type next, for somebody at 3 a.m.: the most urgent thing of all that can be said."""
    if stamp is not Stamp.UNEDITED:
        return "servingrepo config write --take-edit (keep the edit) or --discard-edit (undo it)"
    urgent = next((command for row in rows if (command := _to_roll_back(row))), None)
    if urgent is not None:
        return urgent
    if problems:
        return "servingrepo config check"
    unreachable = [one.endpoint for row in rows for one in row.endpoints if one.error]
    if unreachable:
        return f"see that the server at {unreachable[0]} runs, then this command again"
    if any(row.drift for row in rows):
        return "servingrepo reload " + " ".join(f"--endpoint {one}" for one in endpoints)
    return _when_all_agree(rows, asked=bool(endpoints))


def _to_roll_back(row: ModelStatus) -> str | None:
    """Return the command where what is pinned cannot be served: failed, missing or marked bad."""
    for one in row.endpoints:
        failed = {status.version for status in one.others if status.state == "END"}
        if failed & set(row.pinned):
            return f"servingrepo rollback {row.model} --endpoint {one.endpoint}"
    if set(row.pinned) & set(row.bad) or set(row.pinned) - {*row.on_disk, *row.foreign}:
        return f"servingrepo rollback {row.model}"
    return None


def _when_all_agree(rows: Sequence[ModelStatus], *, asked: bool) -> str:
    if not rows:
        return "servingrepo promote RUN --model NAME"
    idle = [row for row in rows if row.ours and row.on_disk and not row.pinned]
    if idle:
        return f"servingrepo serve {idle[0].model}@latest, if it is meant to be served"
    if not asked:
        return "all agrees on disk; servingrepo status --endpoint HOST:PORT asks a server too"
    return "nothing: disk, models.config and servers agree"
