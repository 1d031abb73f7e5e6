"""How a change goes through several endpoints: what may be missing, and what they must answer. Values only."""

from __future__ import annotations

import msgspec

from servingrepo.servers.engines.server_versions import Version
from servingrepo.servers.states import Endpoint
from servingrepo.smoke import SmokeCase


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one change.

    Attributes:
        allow_down: How many endpoints may not answer at all; they are listed, and follow later.
        probes: Requests that every endpoint must answer with the new version before anything is final.
        first: Endpoints that get the new version before all others.
        batch: How many of the others get it at a time: a part such as 25%, or a number; empty for all.
        watch: Seconds for which each stage is watched before the next.
        gate: A shell command that must end well after each stage was watched.
        poll: Whether the servers follow models.config by reading it again and again
            (--model_config_file_poll_wait_seconds) instead of being told by RPC: then every step is a file.
        bystanders: Servers of the same models.config that take no part: another model's list has them. They are
            written down as left behind, and follow when a command talks to them.
        metrics_port: Where servers have their Prometheus page: the REST port, or relative to the gRPC port (+1).
        server: The TensorFlow of the endpoints' servers, where it is known: a server does not tell it.
        metrics_url: Or its URL, with {host} and {port} for those of each endpoint: behind a proxy, over https.
        min_requests: How many requests both sides must have had before error rates are compared.
        allow_inconclusive: Whether a stage with fewer, or with metrics that cannot be read, goes on all the same.
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
"""Every endpoint answers; no requests of one's own."""


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """In which way one change of what is served is made, whichever change it is.

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
