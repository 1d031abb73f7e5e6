"""The remote engine: a running TensorFlow Serving for smoke tests, which sees our files.

A reload replaces the whole config of a server, and nobody can read its old one (model_service_impl.cc). So the engine
refuses a server that serves a model of ours.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
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
from servingrepo.servers.engines.server_versions import of_image
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.servers.engines.processes import Beside
    from servingrepo.servers.engines.server_versions import Version
    from servingrepo.servers.states import VersionStatus

_CALL_SECONDS = 10.0
_GO_BACK_SECONDS = 10.0
_POLL_SECONDS = 0.05


def empty(endpoint: Endpoint, model: str, version: int, *, seconds: float) -> bool:
    """Unload a version that a dead smoke test left on its server; tell whether it was there.

    Raises:
        ServingRepoError: The server does not answer, or does not unload the version.
    """
    deadline = Deadline.after(seconds)
    if _has_ended(endpoint):
        return False
    with ServingClient(endpoint) as client:
        states = client.status(model, version, timeout=max(deadline.left, _POLL_SECONDS))
        if not _not_ended(client, model, states):
            return False
        client.reload(to_proto(EMPTY), timeout=max(deadline.left, _POLL_SECONDS))
        _await_end(client, model, deadline=deadline)
    return True


def _has_ended(endpoint: Endpoint) -> bool:
    """Tell whether the server has ended: its host refuses the connection. Such a server has left nothing."""
    with suppress(OSError), socket.socket() as connection:
        connection.settimeout(1.0)
        return connection.connect_ex((endpoint.host, endpoint.port)) == errno.ECONNREFUSED
    return False


def _await_end(client: ServingClient, model: str, *, deadline: Deadline) -> None:
    """Wait until all versions of the model have ended.

    Raises:
        ServerTimeout: A version has not at the deadline.
    """
    while True:
        states = client.status(model, timeout=max(deadline.at_most(_CALL_SECONDS), 0.5))
        there = _not_ended(client, model, states)
        if not there:
            return
        if deadline.passed:
            shown = ", ".join(f"{status.version} is {status.state}" for status in there)
            raise ServerTimeout(
                f"{client.endpoint} has not unloaded {model}: {shown}",
                hint="a request in flight keeps a version; use another engine, or another server",
            )
        deadline.pause(_POLL_SECONDS)


def _not_ended(
    client: ServingClient, model: str, states: Iterable[VersionStatus]
) -> list[VersionStatus]:
    """Return the versions that have not ended. One that is AVAILABLE and does not answer has."""
    return [
        status
        for status in states
        if status.state != "END"
        and (
            status.state != "AVAILABLE"
            or client.answers(model, status.version, timeout=_CALL_SECONDS)
        )
    ]


class RemoteEngine(msgspec.Struct, frozen=True, kw_only=True):
    """A server for smoke tests.

    Attributes:
        endpoint: Its gRPC endpoint.
        models: The models directory here; None without a repository.
        server_root: The same directory on the server.
        ours: The names of our models. The server may serve none of them.
        left: Returns the models and versions that dead smoke tests may have left there. They are no reason to refuse.
        image: The image that the caller says it has; it may be empty.
    """

    endpoint: Endpoint
    models: Path | None
    server_root: str
    ours: tuple[str, ...] = ()
    left: Callable[[], frozenset[tuple[str, int]]] = frozenset
    image: str = ""

    @property
    def name(self) -> str:
        """Its name in records."""
        return "remote"

    def expected_version(self) -> Version | None:
        """Return the version in the image's name: a TensorFlow Serving does not say its own over the network."""
        return of_image(self.image)

    @contextmanager
    def serve(
        self,
        *,
        model: str,
        version: int,
        export: Path,
        deadline: Deadline,
        txid: str = "",
        beside: Beside | None = None,
    ) -> Iterator[RunningServer]:
        """Let the server serve `export` as that version of the model, for the block, and nothing after it.

        Raises:
            EngineUnavailable: The server cannot see the files, or serves a model of ours.
            LoadFailed: The server refused the model.
            ServerTimeout: It did not load it by the deadline.
            EndpointUnreachable: Nothing answers there.
        """
        del txid
        config = pin(EMPTY, name=model, base_path=self._seen(export), versions=[version])
        names = [model]
        if beside is not None:
            base = self._seen(beside.export)
            config = pin(config, name=beside.model, base_path=base, versions=[beside.version])
            names.append(beside.model)
        with ServingClient(self.endpoint) as client:
            self._refuse_live(client, names)
            # A model that is added while it unloads fails (servable_state_monitor.cc).
            for name in names:
                _await_end(client, name, deadline=deadline)
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
                # The server has the config nevertheless, and must not keep the model.
                self._leave(client, names)
                reason = load_error(refused.text)
                raise LoadFailed(
                    f"{self.endpoint} could not load {model}@{version}: {reason}",
                    hint=hint_for_load_error(reason),
                ) from refused
            try:
                yield RunningServer(
                    endpoint=self.endpoint,
                    engine=self.name,
                    server=f"{self.image}, as declared"
                    if self.image
                    else "version not known: a TensorFlow Serving does not tell it over gRPC",
                    declared=self.image,
                )
            finally:
                self._leave(client, names)

    def _leave(self, client: ServingClient, models: Iterable[str]) -> None:
        """Empty the server's config and wait until the models have ended; ignore errors."""
        with suppress(ServingRepoError):
            client.reload(to_proto(EMPTY), timeout=_GO_BACK_SECONDS)
            for model in models:
                _await_end(client, model, deadline=Deadline.after(_GO_BACK_SECONDS))

    def _seen(self, export: Path) -> str:
        """Return the base path of an export on the server."""
        if self.models is None or not export.is_relative_to(self.models):
            raise EngineUnavailable(
                f"the server at {self.endpoint} cannot see {export}: it sees the models directory of a "
                "repository only",
                hint="promote it without serving, or use an engine that is given the files: docker, binary "
                "or embedded",
            )
        return f"{self.server_root}/{export.relative_to(self.models).parent.as_posix()}"

    def _refuse_live(self, client: ServingClient, models: Iterable[str]) -> None:
        """Refuse a server that serves a model of ours; unload what dead smoke tests left there.

        Raises:
            EngineUnavailable: It serves such a model.
        """
        left = self.left()
        for name in sorted({*self.ours, *models}):
            states = client.status(name, timeout=_CALL_SECONDS)
            there = _not_ended(client, name, states)
            live = [status.version for status in there if status.state == "AVAILABLE"]
            if any((name, version) not in left for version in live):
                raise EngineUnavailable(
                    f"{self.endpoint} serves {name}@{max(live)}: a smoke test would replace its config",
                    hint="start a server of its own for smoke tests, with an empty models.config",
                )
            if live:
                self._leave(client, [name])
