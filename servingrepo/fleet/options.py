"""Options of the verbs that change what live servers serve: serve, unserve, rollback, label and reload."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self, cast

import msgspec

from servingrepo.fleet.rules import POLL, STRICT, Hooks, Rules
from servingrepo.options import Option, Several
from servingrepo.servers.states import Endpoint

DEFAULT_WAIT = 60.0
"""Seconds for live servers to follow a change."""

ENDPOINT = Option(
    help="gRPC endpoint of a live TensorFlow Serving; repeatable. A name with several addresses means each of them.",
    section="live servers",
    flags="--endpoint",
    metavar="HOST:PORT",
    kind="endpoint",
    env="SERVINGREPO_ENDPOINT",
    shows=("env",),
    tables=("top", "models", "environments"),
)
MESSAGE = Option(
    help="The reason, for the history.",
    section="output",
    flags="-m --message",
    metavar="TEXT",
    kind="message",
)
DRY_RUN = Option(help="Say what would happen; change nothing.", section="output")


class FleetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The live servers that a verb talks to.

    Raises:
        UsageError: A text is no endpoint.
    """

    endpoints: Annotated[Iterable[str | Endpoint], ENDPOINT] = ()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "endpoints", as_endpoints(self.endpoints))

    @property
    def fleet(self) -> tuple[Endpoint, ...]:
        """The endpoints, each once. A name with several addresses stands for each of them."""
        return cast("tuple[Endpoint, ...]", self.endpoints)


class FollowOptions(FleetOptions, frozen=True, kw_only=True):
    """How long live servers may take to follow a change, and whether this is a dry run."""

    wait: Annotated[
        float,
        Option(
            help="How long endpoints may take. Then everything is put back, which may take 30 seconds more (60 with "
            "--reload poll).",
            section="live servers",
            metavar="SECONDS",
            least=0.1,
            env="SERVINGREPO_WAIT",
            shows=("default",),
            tables=("top", "environments"),
        ),
    ] = DEFAULT_WAIT
    dry_run: Annotated[bool, DRY_RUN] = False


class ReloadOptions(FollowOptions, frozen=True, kw_only=True):
    """How servers are made to follow models.config."""

    poll: Annotated[bool, POLL] = False


class LiveOptions(FollowOptions, frozen=True, kw_only=True):
    """How a change of what is served is made.

    Raises:
        UsageError: An endpoint or the URL of the metrics cannot be read, or the message cannot be recorded.
        SettingsError: Headers would go to the page of the metrics without encryption.
    """

    rules: Annotated[Rules | None, Several(Rules, sections=("live servers",))] = None
    hooks: Annotated[Hooks | None, Several(Hooks)] = None
    message: Annotated[str, MESSAGE] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = self.rules or STRICT
        if rules.metrics_url:
            from servingrepo.servers.metrics import page_of

            for endpoint in self.fleet:
                page_of(rules.metrics_url, endpoint)
        msgspec.structs.force_setattr(self, "rules", rules)
        msgspec.structs.force_setattr(self, "message", as_message(self.message))

    @property
    def fleet_rules(self) -> Rules:
        """The rules of the change; strict ones if none are given."""
        return self.rules or STRICT

    def rehearsal(self) -> Self:
        """Return the options of a dry run, for a hook before the change."""
        return msgspec.structs.replace(self, dry_run=True)


class StagedOptions(LiveOptions, frozen=True, kw_only=True):
    """How a change is made that may go through the fleet in stages."""

    rules: Annotated[Rules | None, Several(Rules)] = None


class ServeOptions(StagedOptions, frozen=True, kw_only=True):
    """How a version is served."""


class RollbackOptions(StagedOptions, frozen=True, kw_only=True):
    """How a rollback is made. It goes to the version served before, unless `to` names another version."""

    to: Annotated[
        str | int | None,
        Option(
            help="The version: 7, previous, latest or label:stable. [default: previous]",
            metavar="SEL",
        ),
    ] = None
    mark_bad: Annotated[
        bool,
        Option(
            help="Mark the version bad that clients leave, so that no pipeline brings it back. [default: mark-bad]",
            flags="--mark-bad/--no-mark-bad",
        ),
    ] = True


class LabelOptions(StagedOptions, frozen=True, kw_only=True):
    """How a version gets a label."""

    serve: Annotated[
        bool,
        Option(help="Allow a version above the served one, which unlabelled clients get too."),
    ] = False


def as_endpoints(endpoints: Iterable[str | Endpoint]) -> tuple[Endpoint, ...]:
    """Read endpoints given as HOST:PORT. A name with several addresses stands for each of them.

    Raises:
        UsageError: A text is no endpoint.
    """
    given = tuple(endpoints)
    if not given:
        return ()
    from servingrepo.servers.addresses import resolved

    return resolved(Endpoint.parse(one) if isinstance(one, str) else one for one in given)


def as_message(text: str) -> str:
    """Return why a change is made, without secrets.

    Raises:
        UsageError: It is no text that can be recorded.
    """
    from servingrepo import masking  # a help has no use for it

    return masking.as_message(text)
