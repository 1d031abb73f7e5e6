"""Every difference between disk, models.config and servers, each with its reason.

A reason is a word for scripts: missing-on-disk, damaged, marked-bad, no-answer, uncertain, not-loaded, failed,
loading, unloading, not-pinned, label-missing, label-elsewhere. The message says the same to people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import ServingRepoError
from servingrepo.repository.repository import load_record
from servingrepo.repository.served import served_by_policy
from servingrepo.repository.verification import quick_differences
from servingrepo.servers.states import VersionStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from servingrepo.modelconfig import Entry
    from servingrepo.repository.repository import Repository

_WAITING = {"START": "loading", "LOADING": "loading", "UNLOADING": "unloading"}


class OnEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What one endpoint says of one model. `error` is set when it could not be asked.

    `available` has the versions that the server calls AVAILABLE and that answer; `stale` those that it calls so and
    that answer nothing: they are gone. `labels` has the version that answers for each label of models.config, or None
    where the server refuses it. `seconds` says for how long a version has been in its state, as far as this command
    has looked.
    """

    endpoint: str
    available: tuple[int, ...] = ()
    stale: tuple[int, ...] = ()
    others: tuple[VersionStatus, ...] = ()
    labels: dict[str, int | None] = {}
    seconds: dict[int, float] = {}
    error: str = ""
    uncertain: str = ""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `endpoint` is empty for one between disk and models.config."""

    reason: str
    message: str
    endpoint: str = ""
    version: int | None = None

    def __str__(self) -> str:
        """Return the line for people."""
        return self.message


def damage(repo: Repository, name: str, pinned: Sequence[int]) -> Iterator[Drift]:
    """Yield what is wrong with pinned versions by names and sizes; bytes are for `verify`."""
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


def drift(
    name: str,
    entry: Entry | None,
    on_disk: set[int] | None,
    bad: tuple[int, ...],
    asked: Sequence[OnEndpoint],
    *,
    trash: Sequence[int] = (),
) -> Iterator[Drift]:
    """Yield every difference of one model: disk against config, then each endpoint against it.

    With `on_disk` None the versions are elsewhere: nobody looked at them, so none is called missing or bad, and what
    a policy of others serves there is not known.
    """
    looked = on_disk is not None
    known = looked or entry is None or entry.policy == "specific"
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
    for version in sorted(pinned & set(bad)) if looked else ():
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
            continue  # said already: its version is not there
        found = one.labels[label]
        if found is None:
            yield Drift(
                reason="label-missing",
                endpoint=one.endpoint,
                version=version,
                message=f"{one.endpoint}: label {label} of {name} is {version} in models.config, and not known "
                "to the server",
            )
        elif found != version:
            yield Drift(
                reason="label-elsewhere",
                endpoint=one.endpoint,
                version=version,
                message=f"{one.endpoint}: label {label} of {name} is {version} in models.config, and {found} "
                "on the server",
            )
