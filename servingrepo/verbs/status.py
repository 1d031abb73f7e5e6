"""status: compares disk, models.config and live servers, and says what to do next.

Each difference has a message for people and a reason for scripts: missing-on-disk, damaged, marked-bad, no-answer,
uncertain, not-loaded, failed, loading, unloading, not-pinned, label-missing, label-elsewhere.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import RequestRefused, ServingRepoError
from servingrepo.fleet.parallel import each
from servingrepo.fleet.switch import connect
from servingrepo.modelconfig import Entry, Stamp, check_name, models
from servingrepo.repository.config import (
    UNREPLACEABLE_HINT,
    ConfigFile,
    check_config,
    edited,
    last_text,
    need_model,
    read_config_or_why,
    read_steadily,
    served_by_policy,
    why_unreplaceable,
)
from servingrepo.repository.lagging import LaggingServer, read_lagging
from servingrepo.repository.listing import shown_names, summed_trash
from servingrepo.repository.overtaking import running_commands
from servingrepo.repository.repository import load_record, quick_differences, reread
from servingrepo.repository.snapshot import Snapshot, snapshot_of
from servingrepo.repository.trust import notes
from servingrepo.servers.security import TlsMismatch
from servingrepo.servers.states import VersionStatus
from servingrepo.storage.lock import introduce

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from servingrepo.repository.repository import Repository
    from servingrepo.servers.client import ServingClient
    from servingrepo.servers.states import Endpoint
    from servingrepo.verbs.options import StatusOptions

Seen = dict[tuple[str, str, int], tuple[str, float]]
"""By endpoint, model and version: the last state, and since when it holds."""

_CALL_SECONDS = 5.0
_MOST_ROUNDS = 3
_EVERY_SECONDS = 0.5
_OF_SERVER = frozenset({"no-answer", "uncertain"})
_WAITING = {"START": "loading", "LOADING": "loading", "UNLOADING": "unloading"}


class OnEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one endpoint.

    Attributes:
        available: Versions that the server calls AVAILABLE and that answer.
        stale: Versions that the server calls AVAILABLE and that do not answer: they are gone.
        others: Versions in other states.
        labels: The version that answers for each label of models.config; None if the server refuses the label.
        seconds: How long this command has seen a version in its state.
        error: Why the server could not be asked.
        uncertain: Why the server may still carry out an old reload.
        tls_mismatch: Whether the error is about TLS or a certificate.
    """

    endpoint: str
    available: tuple[int, ...] = ()
    stale: tuple[int, ...] = ()
    others: tuple[VersionStatus, ...] = ()
    labels: dict[str, int | None] = {}
    seconds: dict[int, float] = {}
    error: str = ""
    uncertain: str = ""
    tls_mismatch: bool = False


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `endpoint` is empty for a difference between disk and models.config."""

    reason: str
    message: str
    endpoint: str = ""
    version: int | None = None

    @property
    def of_server(self) -> bool:
        """Whether it is about a server as a whole, so that every model has it."""
        return self.reason in _OF_SERVER

    def __str__(self) -> str:
        """Return the line for people."""
        return self.message


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model: on disk, in models.config, on each endpoint, and every difference.

    `foreign` has the unmanaged versions on disk. `elsewhere` is the base path of a model whose versions are outside
    this repository: such a model is unmanaged, and `on_disk` has only the versions that this repository has under its
    name. `problems` are the problems of the whole repository that are about this model. `policy_before` is the policy
    that its adoption replaced, while servers may still follow it.
    """

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
    drift: tuple[Drift, ...]
    trash: tuple[int, ...] = ()
    trash_size: int = 0
    elsewhere: str = ""
    problems: tuple[str, ...] = ()
    policy_before: str = ""

    @property
    def differs(self) -> bool:
        """Whether something is wrong with this model itself, and not only with a server that was asked about it."""
        return bool(self.problems) or any(not one.of_server for one in self.drift)

    @property
    def unanswered(self) -> bool:
        """Whether a server does not answer, or may still carry out an old reload: then nothing is sure there."""
        return any(one.of_server for one in self.drift)

    @property
    def served(self) -> int | None:
        """The version that unlabelled clients get by models.config."""
        return max(self.pinned, default=None)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All models, the problems of the whole repository, and the command to type next.

    `notes` are less urgent than differences: other users who may write here, unreadable intents. `unknown` says why
    models.config cannot be read; disk and servers are still shown.
    """

    models: tuple[ModelStatus, ...]
    config: str
    problems: tuple[str, ...]
    running: tuple[str, ...]
    behind: tuple[LaggingServer, ...]
    next: str
    notes: tuple[str, ...] = ()
    unknown: str = ""

    @property
    def ok(self) -> bool:
        """Whether disk, config and every endpoint that was asked agree."""
        return not self.problems and not any(model.drift for model in self.models)


def read_status(
    repo: Repository,
    *,
    model: str | None = None,
    endpoints: Sequence[Endpoint] = (),
    seen: Seen | None = None,
) -> Status:
    """Read disk, models.config and servers once. This changes nothing and takes no lock.

    Args:
        repo: The repository.
        model: The model; None for all.
        endpoints: The servers to ask, all at once.
        seen: The states of earlier calls, which this call updates: they tell how long a version has been loading.
    """
    for _ in range(_MOST_ROUNDS):
        file = read_config_or_why(repo)
        entries = {one.name: one for one in models(file.config)}
        names = shown_names(repo, file.config) if model is None else (model,)
        behind = read_lagging(repo)
        asked = ask_all(endpoints, names, entries, behind, seen=seen if seen is not None else {})
        if not endpoints or read_config_or_why(repo).text == file.text:
            break  # otherwise the file changed while servers answered: a server that hangs takes seconds

    def compare(file: ConfigFile) -> Status:
        return _compare(repo, file, names, asked, behind, model=model, endpoints=endpoints)

    return read_steadily(repo, compare)


def ask_all(
    endpoints: Sequence[Endpoint],
    names: Sequence[str],
    entries: Mapping[str, Entry],
    behind: Sequence[LaggingServer],
    *,
    seen: Seen,
) -> dict[str, Mapping[str, OnEndpoint]]:
    """Ask endpoints about models, all at once; return the answers by endpoint and model."""
    labels = {name: tuple(sorted(one.labels)) for name, one in entries.items()}
    answers = each(endpoints, lambda one: _ask(one, names, labels, behind, seen=seen))
    return {str(answer.of): answer.value or {} for answer in answers}


def _compare(
    repo: Repository,
    file: ConfigFile,
    names: Sequence[str],
    asked: Mapping[str, Mapping[str, OnEndpoint]],
    behind: tuple[LaggingServer, ...],
    *,
    model: str | None,
    endpoints: Sequence[Endpoint],
) -> Status:
    """Compare disk and config with the answers of the endpoints."""
    found = [
        finding
        for finding in check_config(repo, file.config)
        if finding.severity == "error" and (model is None or finding.model in {"", model})
    ]
    about: dict[str, tuple[str, ...]] = {}
    for finding in found:
        about[finding.model] = (*about.get(finding.model, ()), str(finding))
    rows = tuple(
        _model_status(
            repo,
            snapshot_of(repo, name, file.config),
            tuple(said[name] for said in asked.values()),
            problems=about.get(name, ()),
            unknown=bool(file.unknown),
        )
        for name in names
    )
    problems = list(map(str, found))
    if file.unknown:
        problems.append(file.unknown)
    elif file.stamp is not Stamp.UNEDITED:
        problems.append(f"{edited(repo, file).message}; servingrepo config check shows the changes")
    running = tuple(
        f"{intent.command} of {intent.model} by {introduce(intent.owner)}"
        for intent in running_commands(repo)
        if model in {None, intent.model}
    )
    if running:
        what_next = f"wait for the {running[0]}, then this command again"
    elif file.unknown or file.stamp is not Stamp.UNEDITED:
        what_next = _make_config_ours(repo, file)
    else:
        what_next = _what_next(rows, problems, endpoints, behind)
    return Status(
        models=rows,
        config=repo.config_name,
        problems=tuple(problems),
        running=running,
        behind=behind,
        next=what_next,
        notes=tuple(notes(repo)),
        unknown=file.unknown,
    )


def watch(repo: Repository, model: str | None, options: StatusOptions) -> Iterator[Status]:
    """Yield a status after another until everything agrees or the time is over; without end if `wait` is None."""
    if model is not None:
        need_model(repo, check_name(model))
    return _watch(repo, model, options)


def _watch(repo: Repository, model: str | None, options: StatusOptions) -> Iterator[Status]:
    deadline = Deadline.after(options.wait) if options.wait is not None else None
    seen: Seen = {}
    while True:
        repo = reread(repo)
        found = read_status(repo, model=model, endpoints=options.fleet, seen=seen)
        yield found
        if deadline is not None and (found.ok or deadline.passed):
            return
        if deadline is not None:
            deadline.pause(_EVERY_SECONDS)
        else:
            time.sleep(_EVERY_SECONDS)


def status(repo: Repository, model: str | None, options: StatusOptions) -> Status:
    """Return disk, config and endpoints side by side, once they agree or `wait` seconds are over."""
    *_, last = watch(repo, model, options)
    return last


def _ask(
    endpoint: Endpoint,
    names: Sequence[str],
    labels: Mapping[str, Sequence[str]],
    behind: Sequence[LaggingServer],
    *,
    seen: Seen,
) -> dict[str, OnEndpoint]:
    """Ask one endpoint about every model. After the first failure the others get the same error."""
    answers: dict[str, OnEndpoint] = {}
    failure: ServingRepoError | None = None
    doubt = next(
        (
            f"{endpoint} may still carry out a reload of {one.since} that timed out: {one.why}"
            for one in behind
            if one.endpoint == str(endpoint) and one.uncertain
        ),
        "",
    )
    with connect(endpoint) as server:
        for name in names:
            if failure is None:
                try:
                    answers[name] = _ask_model(server, name, labels.get(name, ()), doubt, seen)
                    continue
                except ServingRepoError as error:
                    failure = error
            answers[name] = OnEndpoint(
                endpoint=str(endpoint),
                error=failure.message,
                tls_mismatch=isinstance(failure, TlsMismatch),
            )
    return answers


def _ask_model(
    server: ServingClient, name: str, labels: Sequence[str], doubt: str, seen: Seen
) -> OnEndpoint:
    endpoint = str(server.endpoint)
    states = server.status(name, timeout=_CALL_SECONDS)
    now, seconds = time.monotonic(), {}
    for one in states:
        key = (endpoint, name, one.version)
        if key not in seen or seen[key][0] != one.state:
            seen[key] = (one.state, now)
        seconds[one.version] = now - seen[key][1]
    called = [one.version for one in states if one.state == "AVAILABLE"]
    loaded = [one for one in called if server.answers(name, one, timeout=_CALL_SECONDS)]
    answering: dict[str, int | None] = {}
    for label in labels:
        try:
            answering[label] = server.metadata(name, label=label, timeout=_CALL_SECONDS).version
        except RequestRefused:
            answering[label] = None
    return OnEndpoint(
        endpoint=endpoint,
        available=tuple(sorted(loaded)),
        stale=tuple(sorted(set(called) - set(loaded))),
        others=tuple(
            one
            for one in states
            if one.state != "AVAILABLE" and (one.state != "END" or one.code != 0)
        ),
        labels=answering,
        seconds={version: round(value, 1) for version, value in seconds.items() if value >= 1},
        uncertain=doubt,
    )


def _model_status(
    repo: Repository,
    now: Snapshot,
    asked: tuple[OnEndpoint, ...],
    *,
    problems: tuple[str, ...],
    unknown: bool,
) -> ModelStatus:
    entry, ours, there = now.entry, now.state is not None, bool(now.elsewhere)
    on_disk = now.published if ours else ()
    numbers = {*now.published, *now.unmanaged}
    bad = tuple(sorted(now.bad))
    trash, trash_size = summed_trash(repo, now.model) if ours else ((), 0)
    damaged = sorted(set(now.served) & set(on_disk)) if not there else []
    return ModelStatus(
        model=now.model,
        ours=ours,
        on_disk=on_disk,
        foreign=tuple(sorted(numbers - set(on_disk))),
        bad=bad,
        policy="unknown" if unknown else entry.policy if entry is not None else "none",
        pinned=now.served,
        labels=dict(now.labels),
        held=(now.hold.reason or "no reason given") if now.hold is not None else None,
        endpoints=asked,
        drift=()
        if unknown
        else (
            *_damage(repo, now.model, damaged),
            *drift_of(now.model, entry, None if there else numbers, bad, asked, trash=trash),
        ),
        trash=trash,
        trash_size=trash_size,
        elsewhere=now.elsewhere,
        problems=problems,
        policy_before=now.state.policy_before if now.state is not None else "",
    )


def _damage(repo: Repository, name: str, pinned: Sequence[int]) -> Iterator[Drift]:
    """Yield each pinned version whose files differ from its record in name or size. `verify` compares bytes."""
    for version in pinned:
        try:
            record = load_record(repo, name, version)
            differences = quick_differences(repo, record) if record is not None else None
        except ServingRepoError as error:
            yield Drift(
                reason="damaged", version=version, message=f"{name}@{version}: {error.message}"
            )
            continue
        if differences:
            listed = ", ".join(differences.lines()[:3])
            yield Drift(
                reason="damaged",
                version=version,
                message=f"{name}@{version} is pinned but not what its record says: {listed}",
            )


def drift_of(
    name: str,
    entry: Entry | None,
    on_disk: set[int] | None,
    bad: tuple[int, ...],
    asked: Sequence[OnEndpoint],
    *,
    trash: Sequence[int] = (),
) -> Iterator[Drift]:
    """Yield every difference of one model: first between disk and models.config, then between config and endpoints.

    With `on_disk` None the versions are elsewhere, where servingrepo does not read. Then no version counts as missing
    or bad, and only the policy `specific` says which versions are served.
    """
    here = on_disk is not None
    known = here or entry is None or entry.policy == "specific"
    pinned = set(served_by_policy(entry, on_disk or ())) if entry is not None and known else set()
    for version in sorted(pinned - on_disk) if on_disk is not None else ():
        yield Drift(
            reason="missing-on-disk",
            version=version,
            message=f"{name}@{version} is pinned but missing on disk"
            + (
                f": it is in the trash; servingrepo restore {name}@{version}"
                if version in trash
                else ""
            ),
        )
    for version in sorted(pinned & set(bad)) if here else ():
        yield Drift(
            reason="marked-bad",
            version=version,
            message=f"{name}@{version} is pinned but marked bad",
        )
    for one in asked:
        if one.error:
            yield Drift(reason="no-answer", endpoint=one.endpoint, message=one.error)
            continue
        if one.uncertain:
            yield Drift(reason="uncertain", endpoint=one.endpoint, message=one.uncertain)
        if known:
            yield from _versions(name, pinned, one)
        yield from _labels(name, entry, one)


def _versions(name: str, pinned: set[int], one: OnEndpoint) -> Iterator[Drift]:
    by_version = {status.version: status for status in one.others}
    for version in sorted(pinned - set(one.available)):
        reason, why = _why_not(by_version, version, one)
        yield Drift(
            reason=reason,
            endpoint=one.endpoint,
            version=version,
            message=f"{one.endpoint}: {name}@{version} {why}",
        )
    for version in sorted(set(one.available) - pinned):
        yield Drift(
            reason="not-pinned",
            endpoint=one.endpoint,
            version=version,
            message=f"{one.endpoint}: {name}@{version} is loaded but models.config does not pin it",
        )
    for status in one.others:
        if status.version not in pinned and status.state in {"START", "LOADING"}:
            yield Drift(
                reason="not-pinned",
                endpoint=one.endpoint,
                version=status.version,
                message=f"{one.endpoint}: {name}@{status.version} is {status.state}, but models.config does "
                "not pin it",
            )


def _why_not(
    by_version: Mapping[int, VersionStatus], version: int, one: OnEndpoint
) -> tuple[str, str]:
    if version in one.stale:
        return "not-loaded", "is pinned and called AVAILABLE by the server, but does not answer"
    status = by_version.get(version)
    if status is None:
        return "not-loaded", (
            "is pinned but not loaded: the server has not read this models.config, or does not see these files"
        )
    if status.state == "END":
        return "failed", f"failed to load: {status.error}"
    seconds = one.seconds.get(version, 0.0)
    since = f", for {seconds:.0f} s now" if seconds >= 1 else ""
    return _WAITING.get(status.state, "not-loaded"), f"is {status.state}{since}"


def _labels(name: str, entry: Entry | None, one: OnEndpoint) -> Iterator[Drift]:
    wanted = entry.labels if entry is not None else {}
    for label, version in sorted(wanted.items()):
        if label not in one.labels or version not in one.available:
            continue  # `_versions` reports that its version is missing
        found = one.labels[label]
        if found is None:
            yield Drift(
                reason="label-missing",
                endpoint=one.endpoint,
                version=version,
                message=f"{one.endpoint}: label {label} of {name} is {version} in models.config, but the server "
                "does not know it",
            )
        elif found != version:
            yield Drift(
                reason="label-elsewhere",
                endpoint=one.endpoint,
                version=version,
                message=f"{one.endpoint}: label {label} of {name} is {version} in models.config, but {found} "
                "on the server",
            )


def _make_config_ours(repo: Repository, file: ConfigFile) -> str:
    """Return the command to type next if models.config cannot be read, or differs from what servingrepo wrote."""
    if why_unreplaceable(repo):
        return UNREPLACEABLE_HINT
    known = last_text(repo) is not None
    if file.unknown:
        return (
            "servingrepo config write --discard-edit (back to what servingrepo wrote last)"
            if known
            else f"correct {repo.config_name}, then servingrepo config write --take-edit"
        )
    if not known:
        return "servingrepo adopt --all (or config write --take-edit, which takes over models.config alone)"
    return "servingrepo config write --take-edit (keep the edit) or --discard-edit (undo it)"


def _what_next(
    rows: Sequence[ModelStatus],
    problems: Sequence[str],
    endpoints: Sequence[Endpoint],
    behind: Sequence[LaggingServer],
) -> str:
    """Return the most urgent command, for a tired person at 3 a.m."""
    urgent = next((command for row in rows if (command := _away_from_useless(row))), None)
    if urgent is not None:
        return urgent
    if problems:
        return "servingrepo config check"
    silent = next((one for row in rows for one in row.endpoints if one.error), None)
    if silent is not None:
        if silent.tls_mismatch:
            return f"correct the TLS options for {silent.endpoint} (--tls, --tls-ca, …), then this command again"
        return f"see that the server at {silent.endpoint} runs, then this command again"
    if any(row.drift for row in rows):
        return "servingrepo reload " + " ".join(f"--endpoint {one}" for one in endpoints)
    if behind:
        return "servingrepo reload " + " ".join(f"--endpoint {one.endpoint}" for one in behind)
    if any(row.policy_before for row in rows):
        at = " ".join(f"--endpoint {one}" for one in endpoints) or "--endpoint HOST:PORT"
        return f"servingrepo reload {at}, so that servers follow the pins"
    return _when_all_agree(rows, asked=bool(endpoints))


def _away_from_useless(row: ModelStatus) -> str | None:
    """Return the command that stops serving a version that failed, is missing or bad; None if all are good."""
    failed = {one.version for each in row.endpoints for one in each.others if one.state == "END"}
    if row.elsewhere:  # nothing of ours is pinned, and no command of ours changes it
        return (
            f"correct {row.model} at {row.elsewhere}, or its entry in models.config by hand "
            "(then servingrepo config write --take-edit)"
            if failed & set(row.pinned)
            else None
        )
    useless = failed | {*row.bad} | set(row.pinned) - {*row.on_disk, *row.foreign}
    useless &= set(row.pinned)
    at = "".join(f" --endpoint {one.endpoint}" for one in row.endpoints)
    if row.served in useless:
        return f"servingrepo rollback {row.model}{at}"
    labels = sorted(label for label, version in row.labels.items() if version in useless)
    if labels:  # what unlabelled clients get is good: a rollback would mark it bad
        return f"servingrepo label remove {row.model} {' '.join(labels)}{at}"
    return None


def _failed_unpinned(
    rows: Sequence[ModelStatus],
) -> Iterator[tuple[ModelStatus, str, VersionStatus]]:
    """Yield each version that failed to load on a server and is no longer pinned."""
    for row in rows:
        for one in row.endpoints:
            for status in one.others:
                if status.failed and status.version not in row.pinned:
                    yield row, one.endpoint, status


def _when_all_agree(rows: Sequence[ModelStatus], *, asked: bool) -> str:
    ours = any(row.ours for row in rows)
    if not ours and any(row.foreign for row in rows):
        return "servingrepo adopt --all (takes models under management where they lie)"
    if not ours and not any(row.pinned for row in rows):
        return "servingrepo promote RUN --model NAME"
    idle = [
        row for row in rows if row.ours and row.on_disk and not row.pinned and not row.elsewhere
    ]
    if idle:
        return f"servingrepo serve {idle[0].model}@latest, if it is meant to be served"
    tried = next(_failed_unpinned(rows), None)
    if tried is not None:
        row, at, status = tried
        name = f"{row.model}@{status.version}"
        here = status.version in row.on_disk
        what = (
            f"servingrepo verify {name}"
            if here
            else f"correct the run of {name} and promote it again"
        )
        return f"{what} (it failed on {at}, and is not served); else disk, models.config and servers agree"
    elsewhere = any(row.elsewhere for row in rows)
    unseen = (
        "; the versions of unmanaged models were not checked (servingrepo adopt --all --dry-run says which of them "
        "it can manage)"
        if elsewhere
        else ""
    )
    if not asked:
        return (
            f"all agrees on disk{unseen}; servingrepo status --endpoint HOST:PORT asks a server too"
        )
    return f"nothing: disk, models.config and servers agree{unseen}"
