"""The remote engine: a TensorFlow Serving that runs already, for smoke tests, and sees our files.

TensorFlow Serving replaces its whole config at a reload and does not say what it had (model_service_impl.cc).
So the server must be one for smoke tests: one that serves a model of ours is refused.
"""

from __future__ import annotations

import errno
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.deadline import Deadline
from servingrepo.errors import (
    EngineUnavailable,
    LoadFailed,
    RequestRefused,
    ServerTimeout,
    ServingRepoError,
)
from servingrepo.modelconfig import EMPTY, pin, to_proto
from servingrepo.servers.client import ServingClient
from servingrepo.servers.engines.processes import RunningServer, hint_for_load_error, load_error
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.servers.states import VersionStatus

_CALL_SECONDS = 10.0
_GO_BACK_SECONDS = 10.0
_POLL_SECONDS = 0.05


def empty(endpoint: Endpoint, model: str, version: int, *, seconds: float) -> bool:
    """Unload a version that a dead smoke test left on its server; tell whether it was there.

    A server that has ended has left nothing.

    Raises:
        ServingRepoError: It cannot be spoken to, or does not let go of the version.
    """
    deadline = Deadline.after(seconds)
    if _has_ended(endpoint):
        return False
    with ServingClient(endpoint) as client:
        states = client.status(model, version, timeout=max(deadline.left, _POLL_SECONDS))
        there = [one for one in states if one.state != "END" and not _is_gone(client, model, one)]
        if there:
            client.reload(to_proto(EMPTY), timeout=max(deadline.left, _POLL_SECONDS))
            _await_end(client, model, deadline=deadline)
    return bool(there)


def _has_ended(endpoint: Endpoint) -> bool:
    """Tell whether nothing listens there although its host answers: refused, not silent or unknown."""
    with suppress(OSError), socket.socket() as connection:
        connection.settimeout(1.0)
        return connection.connect_ex((endpoint.host, endpoint.port)) == errno.ECONNREFUSED
    return False


def _await_end(client: ServingClient, model: str, *, deadline: Deadline) -> None:
    """Wait until no version of the model is anything but ended.

    Raises:
        ServerTimeout: One still is at the deadline.
    """
    while True:
        states = client.status(model, timeout=max(deadline.at_most(_CALL_SECONDS), 0.5))
        going = [
            f"{one.version} is {one.state}"
            for one in states
            if one.state != "END" and not _is_gone(client, model, one)
        ]
        if not going:
            return
        if deadline.passed:
            raise ServerTimeout(
                f"{client.endpoint} has not let go of {model}: {', '.join(going)}",
                hint="a request in flight keeps a version; use another engine, or another server",
            )
        deadline.pause(_POLL_SECONDS)


def _is_gone(client: ServingClient, model: str, one: VersionStatus) -> bool:
    """Tell whether a version is called AVAILABLE and answers nothing."""
    return one.state == "AVAILABLE" and not client.answers(
        model, one.version, timeout=_CALL_SECONDS
    )


class RemoteEngine(msgspec.Struct, frozen=True, kw_only=True):
    """A server for smoke tests.

    Attributes:
        endpoint: Its gRPC endpoint.
        models: The models directory as we see it; None where there is no repository.
        server_root: The same directory as the server sees it.
        ours: The names of our models: none of them may be served there.
        left: Models and versions that dead smoke tests may have left there: they keep nobody away.
    """

    endpoint: Endpoint
    models: Path | None
    server_root: str
    ours: tuple[str, ...] = ()
    left: frozenset[tuple[str, int]] = frozenset()

    @property
    def name(self) -> str:
        """What records call this engine."""
        return "remote"

    def expected_version(self) -> None:
        """Return nothing: TensorFlow Serving tells nobody over the network which version it is."""
        return

    @contextmanager
    def serve(
        self, *, model: str, version: int, export: Path, deadline: Deadline, txid: str = ""
    ) -> Iterator[RunningServer]:
        """Have the server serve `export` as that version of the model, for the block; then nothing.

        Raises:
            EngineUnavailable: The server cannot see the files, or serves a model of ours.
            LoadFailed: The server refused the model.
            ServerTimeout: It did not load it by the deadline.
            EndpointUnreachable: Nothing answers there.
        """
        del txid
        config = pin(EMPTY, name=model, base_path=self._seen(export), versions=[version])
        with ServingClient(self.endpoint) as client:
            self._refuse_live(client, model)
            # A model that is added while it is still unloading fails (servable_state_monitor.cc).
            _await_end(client, model, deadline=deadline)
            try:
                client.reload(to_proto(config), timeout=deadline.left)
            except ServerTimeout as error:
                raise ServerTimeout(
                    f"{self.endpoint} did not load {model}@{version} within {deadline.seconds:.3g} s: a server "
                    f"that does not see {self._seen(export)} ({export.parent} on this machine) never answers",
                    hint=f"mount {self.models} where that server sees {self.server_root}, and restart it: its "
                    "reloads hang until then; or use another engine",
                ) from error
            except RequestRefused as refused:
                # The server has taken the config all the same: it must not keep the model.
                self._leave(client, model)
                reason = load_error(refused.text)
                raise LoadFailed(
                    f"{self.endpoint} could not load {model}@{version}: {reason}",
                    hint=hint_for_load_error(reason),
                ) from refused
            try:
                yield RunningServer(
                    endpoint=self.endpoint,
                    engine=self.name,
                    server="version not known: a TensorFlow Serving does not tell it over gRPC",
                )
            finally:
                self._leave(client, model)

    def _leave(self, client: ServingClient, model: str) -> None:
        """Empty the server's config and wait until the model has gone, as far as that works."""
        with suppress(ServingRepoError):
            client.reload(to_proto(EMPTY), timeout=_GO_BACK_SECONDS)
            _await_end(client, model, deadline=Deadline.after(_GO_BACK_SECONDS))

    def _seen(self, export: Path) -> str:
        """Return the base path of an export as the server sees it."""
        if self.models is None or not export.is_relative_to(self.models):
            raise EngineUnavailable(
                f"the server at {self.endpoint} cannot see {export}: it sees the models directory of a "
                "repository only",
                hint="promote it without serving, or use an engine that is given the files: docker, binary "
                "or embedded",
            )
        return f"{self.server_root}/{export.relative_to(self.models).parent.as_posix()}"

    def _refuse_live(self, client: ServingClient, model: str) -> None:
        """Refuse a server that serves a model of ours; unload what dead smoke tests left there.

        Raises:
            EngineUnavailable: It serves one.
        """
        for name in sorted({*self.ours, model}):
            states = client.status(name, timeout=_CALL_SECONDS)
            live = [
                one.version
                for one in states
                if one.state == "AVAILABLE" and not _is_gone(client, name, one)
            ]
            if not live:
                continue
            if all((name, version) in self.left for version in live):
                self._leave(client, name)
                continue
            raise EngineUnavailable(
                f"{self.endpoint} serves {name}@{max(live)}: a smoke test would replace its config",
                hint="start a server of its own for smoke tests, with an empty models.config",
            )
