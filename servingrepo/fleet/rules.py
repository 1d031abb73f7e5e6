"""The rules of a change on several servers: which may be missing, what they must answer. Values only."""

from __future__ import annotations

import msgspec

from servingrepo.servers.engines.server_versions import Version
from servingrepo.servers.states import Endpoint
from servingrepo.smoke import SmokeCase


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one change.

    Attributes:
        allow_down: How many servers may be down; they are listed, and follow later.
        probes: The user's own requests: every server must answer them with the new version before C2.
        first: Endpoints of the first stage.
        batch: How many of the other servers a stage has: a part such as 25%, or a number; empty for all.
        watch: Seconds for which each stage is watched before the next.
        gate: The stage check: a shell command that must end well after each stage was watched.
        poll: Whether the servers follow models.config by reading it again and again
            (--model_config_file_poll_wait_seconds), not by RPC: then each step is a file.
        metrics_port: The port of the servers' Prometheus page: the REST port, or relative to the gRPC port (+1).
        server: The TensorFlow version of the servers, where it is known: no server says it.
        metrics_url: Or the page's URL, with {host} and {port} for those of each endpoint: behind a proxy, over https.
        min_requests: How many requests a stage and its control must each have had before error rates are compared.
        allow_inconclusive: Whether an inconclusive stage (fewer requests, unreadable metrics) goes on all the same.
    """

    allow_down: int = 0
    probes: tuple[SmokeCase, ...] = ()
    first: tuple[str, ...] = ()
    batch: str = ""
    watch: float = 0.0
    gate: str = ""
    metrics_port: str = ""
    metrics_url: str = ""
    min_requests: int = 50
    allow_inconclusive: bool = False
    bystanders: tuple[str, ...] = ()
    """Servers of the same models.config that are not reloaded: only another model's list has them.

    They are written down as lagging servers, and follow when a command talks to them.
    """
    poll: bool = False
    server: Version | None = None

    @property
    def staged(self) -> bool:
        """Whether a change goes in stages, or its one stage is watched."""
        asked = (self.first, self.batch, self.watch, self.gate, self.counts_errors)
        return any(map(bool, asked))

    @property
    def counts_errors(self) -> bool:
        """Whether errors are read from the servers' metrics."""
        return bool(self.metrics_port or self.metrics_url)


STRICT = Rules()
"""Every server answers, and gets no requests of the user's own."""


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a change of what is served is made; the same for each verb that changes it.

    Attributes:
        endpoints: The live servers that follow it; without any only models.config changes.
        wait: Seconds that they may take; then everything is put back.
        rules: How it goes through several of them.
        message: Why: kept in the history.
        dry_run: Say what would happen, and change nothing.
    """

    wait: float
    endpoints: tuple[Endpoint, ...] = ()
    rules: Rules = STRICT
    message: str = ""
    dry_run: bool = False
