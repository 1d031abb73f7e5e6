"""The rules of a change on several servers, and its hooks, as values."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec

from servingrepo.options import Option
from servingrepo.servers.engines.server_versions import Version

if TYPE_CHECKING:
    from servingrepo.smoke.cases import SmokeCase  # noqa: TC004 - it reads SavedModels, and a help need not

_stage = partial(Option, section="stages")
_hook = partial(Option, section="hooks")

POLL = Option(
    help="How servers hear of a change: by RPC, or by polling models.config (with "
    "--model_config_file_poll_wait_seconds). [default: rpc]",
    section="live servers",
    flags="--reload",
    key="reload_by",
    choices={"rpc": False, "poll": True},
    env="SERVINGREPO_RELOAD",
    tables=("environments",),
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one change.

    Attributes:
        server: The TensorFlow version of the servers, where it is known: no server says it.
    """

    allow_down: Annotated[
        int,
        Option(
            help="Go on without up to N endpoints that do not answer; they are listed, and follow later. "
            "[default: 0]",
            section="live servers",
            metavar="N",
            least=0,
            env="SERVINGREPO_ALLOW_DOWN",
            tables=("environments",),
        ),
    ] = 0
    poll: Annotated[bool, POLL] = False
    server: Annotated[
        Version | None,
        Option(
            help="The version of the endpoints' TensorFlow Serving, such as 2.19.1. A model whose operations it "
            "lacks is refused; a rollback only warns.",
            section="live servers",
            flags="--server-version",
            key="server_version",
            metavar="VERSION",
            kind="server version",
            tables=("environments",),
        ),
    ] = None
    probes: Annotated[
        tuple[SmokeCase, ...],
        Option(
            help="Requests that every endpoint must answer with the new version before models.config changes; files "
            "as for --case of smoke; repeatable.",
            section="live servers",
            flags="--probe",
            metavar="FILE",
            kind="cases",
            tables=("models",),
        ),
    ] = ()
    other_servers: tuple[str, ...] = ()
    """Servers of the same models.config that only the lists of other models have, so they are not reloaded.

    They are recorded as lagging servers, and follow when a command talks to them.
    """
    first: Annotated[
        tuple[str, ...],
        _stage(
            help="Endpoints that get the new version before all others; repeatable.",
            metavar="HOST:PORT",
        ),
    ] = ()
    batch: Annotated[
        str, _stage(help="How many of the others get it at a time.", metavar="N|N%")
    ] = ""
    watch: Annotated[
        float,
        _stage(
            help="Watch each stage for this time before the next one; if it fails, everything is put back.",
            flags="--watch-for",
            metavar="SECONDS",
            least=0,
        ),
    ] = 0.0
    gate: Annotated[
        str,
        _stage(
            help="The stage check: a command that must succeed after each stage; it gets the stage as JSON on stdin.",
            metavar="COMMAND",
        ),
    ] = ""
    metrics_port: Annotated[
        str,
        _stage(
            help="Compare errors in the servers' Prometheus metrics: their REST port, or gRPC port + N.",
            metavar="PORT|+N",
        ),
    ] = ""
    metrics_url: Annotated[
        str,
        _stage(
            help="The same through a proxy, such as https://{host}:8443: {host} and {port} are those of each "
            "endpoint; --tls-… and --header count there too.",
            metavar="URL",
        ),
    ] = ""
    min_requests: Annotated[
        int,
        _stage(
            help="How many requests a stage and its control need before errors are judged. With fewer the stage is "
            "inconclusive, and everything is put back.",
            metavar="N",
            least=1,
            shows=("default",),
        ),
    ] = 50
    allow_inconclusive: Annotated[
        bool,
        _stage(help="Go on after a stage, or a comparison with a budget, that is inconclusive."),
    ] = False

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


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """Shell commands before and after one change, in order, and how long each may take in seconds."""

    before: Annotated[
        tuple[str, ...],
        _hook(
            help="Run this before the change, with its dry run as JSON on stdin; if it fails, nothing is changed; "
            "repeatable.",
            key="hooks_before",
            metavar="COMMAND",
        ),
    ] = ()
    after: Annotated[
        tuple[str, ...],
        _hook(
            help="Run this after the change, with its result as JSON on stdin; repeatable.",
            key="hooks_after",
            metavar="COMMAND",
        ),
    ] = ()
    timeout: float = 60.0
