"""What the verbs of the Python API take: paths, endpoints, engines, and how live servers follow a change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import msgspec

from servingrepo.masking import mask_text
from servingrepo.texts import as_path, as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from servingrepo.fleet.hooks import Hooks
    from servingrepo.fleet.rules import Rules
    from servingrepo.servers.engines.choice import Engine, EngineChoice
    from servingrepo.servers.states import Endpoint
    from servingrepo.verbs.change import Switched

DEFAULT_WAIT = 60.0
"""Seconds for live servers to follow a change."""

DEFAULT_TIMEOUT = 120.0
"""Seconds for a smoke test, the server's start included."""


class How(TypedDict, total=False):
    """How live servers follow a change, and what goes with it: keywords of every verb that changes what is served.

    Attributes:
        endpoints: Live servers, as HOST:PORT; without any only models.config changes.
        wait: Seconds that they may take; then everything is put back.
        rules: What may be missing, and what must be answered.
        hooks: Commands before and after the change.
        message: Why: kept in the history.
        dry_run: Say what would happen, and change nothing.
    """

    endpoints: Iterable[str | Endpoint]
    wait: float
    rules: Rules | None
    hooks: Hooks | None
    message: str
    dry_run: bool


def as_choice(engine: Engine | EngineChoice | str | None) -> Engine | EngineChoice | None:
    """Return the engine, or what was asked for by name."""
    if not isinstance(engine, str):
        return engine
    from servingrepo.servers.engines.choice import EngineChoice

    return EngineChoice(name=engine)


def changed(action: str, change: Callable[..., Switched], how: How) -> Switched:
    """Make a change in the way that is asked for, between its hooks."""
    from servingrepo.fleet.hooks import hooked
    from servingrepo.fleet.rules import Manner

    endpoints = as_endpoints(how.get("endpoints", ()))
    manner = Manner(
        endpoints=endpoints,
        wait=how.get("wait", DEFAULT_WAIT),
        rules=as_rules(how.get("rules"), endpoints),
        message=as_message(how.get("message", "")),
    )

    def make(*, dry_run: bool) -> Switched:
        return change(manner=msgspec.structs.replace(manner, dry_run=dry_run))

    done, told = hooked(how.get("hooks"), action, make, dry_run=how.get("dry_run", False))
    return msgspec.structs.replace(done, hooks=told) if told else done


def as_message(text: str) -> str:
    """Return why a change is made, without secrets: it goes into records, and is shown as it stands there.

    Raises:
        UsageError: It is no text that can be recorded.
    """
    return mask_text(as_text(text, "message"))


def optional_path(path: str | Path | None) -> Path | None:
    """Return a path that may be left out.

    Raises:
        UsageError: No file can have this name.
    """
    return as_path(path, "path") if path else None


def as_rules(rules: Rules | None, endpoints: Iterable[Endpoint]) -> Rules:
    """Return the rules of a change, if they can be kept on these endpoints.

    Raises:
        UsageError: The URL of their metrics is none.
        SettingsError: Their headers would go to the page of their metrics in clear.
    """
    from servingrepo.fleet.rules import STRICT

    if rules is not None and rules.metrics_url:
        from servingrepo.servers.metrics import page_of

        for endpoint in endpoints:
            page_of(rules.metrics_url, endpoint)
    return rules or STRICT


def as_endpoints(endpoints: Iterable[str | Endpoint]) -> tuple[Endpoint, ...]:
    """Read endpoints given as HOST:PORT; a name that has several addresses means each of them.

    Raises:
        UsageError: One is none.
    """
    given = tuple(endpoints)
    if not given:
        return ()
    from servingrepo.servers.addresses import resolved
    from servingrepo.servers.states import Endpoint

    return resolved(Endpoint.parse(one) if isinstance(one, str) else one for one in given)


def is_path(subject: str | Path) -> bool:
    """Tell whether a subject is a path: a Path, or a text with a slash, `.` or `..`."""
    return isinstance(subject, Path) or "/" in subject or subject in {".", ".."}
