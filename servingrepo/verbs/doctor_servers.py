"""Running servers as `doctor` asks them: whether their states, versions and labels are those of disk and config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.modelconfig import Entry
from servingrepo.verbs.doctor_rules import found
from servingrepo.verbs.status import ask_all, drift_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from servingrepo.servers.states import Endpoint
    from servingrepo.verbs.doctor_rules import Finding
    from servingrepo.verbs.status import Drift, OnEndpoint

__all__ = ["Served", "ask_servers"]

_SLUGS = {
    "no-answer": "server-no-answer",
    "failed": "server-failed",
    "not-loaded": "server-differs",
    "not-pinned": "server-differs",
    "missing-on-disk": "",  # a finding of the config
    "label-missing": "server-label-differs",
    "label-elsewhere": "server-label-differs",
}
"""The rule of each reason of `status`. A version that is loading or unloading now is no finding."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What servers should have of a model.

    Attributes:
        entry: Its entry, or that which a server without a config has.
        on_disk: Its versions; None if they are not known.
        configured: Whether the entry is from a config.
    """

    entry: Entry
    on_disk: frozenset[int] | None
    configured: bool


def ask_servers(
    endpoints: Sequence[Endpoint], models: Mapping[str, Served]
) -> tuple[list[Finding], list[str]]:
    """Ask servers about models, all at once; return what differs, and what was not checked."""
    entries = {name: one.entry for name, one in models.items()}
    findings: list[Finding] = []
    not_checked: list[str] = []
    for endpoint, answers in ask_all(endpoints, list(models), entries, (), seen={}).items():
        silent = next((one for one in answers.values() if one.error), None)
        if silent is not None:
            findings.append(
                found("server-no-answer", silent.error, _how_to_reach(silent), path=endpoint)
            )
            continue
        if not models:
            not_checked.append(f"{endpoint}: there is no model to ask it about")
        known = [name for name, one in answers.items() if one.available or one.stale or one.others]
        if models and not known:
            not_checked.append(f"{endpoint} has none of these models: {', '.join([*models][:10])}")
        for name, said in answers.items():
            one = models[name]
            if one.configured or name in known:
                findings += _differences(name, one, said)
    return findings, not_checked


def _how_to_reach(silent: OnEndpoint) -> str:
    if silent.tls_mismatch:
        return "correct the TLS options (--tls, --tls-ca, …)"
    return ""


def _differences(name: str, one: Served, said: OnEndpoint) -> Iterator[Finding]:
    on_disk = set(one.on_disk) if one.on_disk is not None else None
    if on_disk is None and not one.configured:
        return
    for drift in drift_of(name, one.entry, on_disk, (), (said,)):
        slug = _SLUGS.get(drift.reason, "")
        if slug:
            what = drift.message if one.configured else _without_config(name, drift)
            yield found(slug, what, _remedy(name, one, drift), model=name, path=drift.endpoint)


def _without_config(name: str, drift: Drift) -> str:
    """Say a difference where no config pins versions: a server then serves the highest number."""
    at = f"{drift.endpoint}: {name}@{drift.version}"
    match drift.reason:
        case "not-loaded":
            return f"{at} is the highest version on disk, and the server has not loaded it"
        case "not-pinned":
            return f"{at} is loaded, and is not the highest version on disk"
        case _:
            return drift.message


def _remedy(name: str, one: Served, drift: Drift) -> str:
    if (
        drift.reason == "not-pinned"
        and one.on_disk is not None
        and drift.version not in one.on_disk
    ):
        return f"put {name}@{drift.version} back on disk before the server restarts, or let it go with the restart"
    return ""
