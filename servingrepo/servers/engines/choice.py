"""Engines by name. Each engine is a gRPC endpoint for the time of a block."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from servingrepo.deadline import Deadline
from servingrepo.errors import EngineUnavailable, ServingRepoError, UsageError
from servingrepo.servers.engines.options import ContainerOptions, EngineChoice
from servingrepo.servers.engines.server_versions import (
    UNKNOWN_SERVER,
    ExpectedServer,
    server_of_image,
)
from servingrepo.servers.states import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from servingrepo.servers.engines.binary import BinaryEngine
    from servingrepo.servers.engines.docker import DockerEngine
    from servingrepo.servers.engines.embedded import EmbeddedEngine
    from servingrepo.servers.engines.processes import Beside, RunningServer
    from servingrepo.servers.engines.server_versions import Version

__all__ = ["NAMES", "Engine", "EngineChoice", "choose_engine", "expected_server", "ignored_by"]

_READY_SECONDS = 10.0
NAMES = "auto, docker, binary, binary:PATH, embedded, remote:HOST:PORT"


class Engine(Protocol):
    """A way to serve one version of one model."""

    @property
    def name(self) -> str:
        """Its name in records."""

    def expected_version(self) -> Version | None:
        """Return the version of TensorFlow in its server, if that is known before it starts."""

    def serve(
        self,
        *,
        model: str,
        version: int,
        export: Path,
        deadline: Deadline,
        txid: str = "",
        beside: Beside | None = None,
    ) -> AbstractContextManager[RunningServer]:
        """Serve the directory `export` as that version of the model, and another one beside it, for the block."""


_USES = {"binary": {"arguments"}, "embedded": set[str](), "remote": {"image"}}
"""The fields of ContainerOptions that an engine uses. An engine that is not here uses all."""


def ignored_by(engine: str) -> frozenset[str]:
    """Return the fields of ContainerOptions that the engine of this name does not use."""
    kind = engine.partition(":")[0]
    if kind not in _USES:
        return frozenset()
    return frozenset(ContainerOptions.__struct_fields__) - _USES[kind]


def choose_engine(
    choice: EngineChoice,
    *,
    models: Path | None = None,
    server_root: str = "/models",
    ours: tuple[str, ...] = (),
    left_on: Callable[[Endpoint], frozenset[tuple[str, int]]] | None = None,
) -> Engine:
    """Return the engine that a user chose.

    `auto` is docker if the daemon answers and the image is there (or may be pulled), else a
    tensorflow_model_server on PATH, else the embedded engine. `left_on` returns what dead smoke tests left on a
    server.

    Raises:
        UsageError: There is no such engine.
    """
    kind, _, rest = choice.name.partition(":")
    if choice.name == "auto":
        return _best(choice)
    if choice.name == "embedded":
        return _embedded()
    if choice.name == "docker":
        return _docker(choice)
    if kind == "binary":
        return _binary(choice, rest)
    if kind == "remote" and rest:
        from servingrepo.servers.engines.remote import RemoteEngine  # imports grpc

        endpoint = Endpoint.parse(rest, choice.security)
        return RemoteEngine(
            endpoint=endpoint,
            left=partial(left_on, endpoint) if left_on is not None else frozenset,
            models=models,
            server_root=server_root,
            ours=ours,
            image=choice.image or "",
        )
    raise UsageError(f"there is no engine {choice.name!r}", hint=f"engines: {NAMES}")


def expected_server(engine: Engine | EngineChoice | None) -> ExpectedServer:
    """Return the server that an engine will start, or that a choice of engine would.

    Raises:
        EngineUnavailable: The program or library of an engine is not installed.
    """
    if not isinstance(engine, EngineChoice):
        if engine is None:
            return UNKNOWN_SERVER
        if engine.name in {"docker", "remote"}:
            return server_of_image(getattr(engine, "image", ""))
        return ExpectedServer(version=engine.expected_version())
    if engine.name == "docker" or (engine.name == "auto" and engine.image):
        return server_of_image(_docker(engine).image)
    if engine.name.startswith("remote:"):
        return server_of_image(engine.image or "")
    if engine.name == "embedded":
        with suppress(EngineUnavailable):
            return expected_server(_embedded())
    return UNKNOWN_SERVER


def _best(choice: EngineChoice) -> Engine:
    if _docker_is_ready(choice):
        return _docker(choice)
    from shutil import which  # 2 ms that a promotion without a smoke test need not pay

    binary = _binary(choice)
    return binary if which(binary.path) is not None else _embedded()


# Engines are imported where they are made: most promotions need one, and others none.


def _binary(choice: EngineChoice, path: str = "") -> BinaryEngine:
    from servingrepo.servers.engines.binary import BINARY, BinaryEngine

    return BinaryEngine(path=path or BINARY, arguments=choice.arguments)


def _embedded() -> EmbeddedEngine:
    from servingrepo.servers.engines.embedded import EmbeddedEngine

    return EmbeddedEngine()


def _docker(choice: EngineChoice) -> DockerEngine:
    from servingrepo.servers.engines.docker import DEFAULT_IMAGE, DockerEngine

    given = {field: getattr(choice, field) for field in ContainerOptions.__struct_fields__}
    return DockerEngine(**{**given, "image": choice.image or DEFAULT_IMAGE})


def _docker_is_ready(choice: EngineChoice) -> bool:
    """Tell whether a daemon answers and has the image. Import its SDK only if there may be a daemon."""
    traces = (Path("/var/run/docker.sock"), Path("~/.docker/config.json").expanduser())
    if not os.environ.get("DOCKER_HOST") and not any(path.exists() for path in traces):
        return False
    from servingrepo.servers.engines.docker_daemon import connect
    from servingrepo.servers.engines.docker_images import find_image

    engine = _docker(choice)
    deadline = Deadline.after(_READY_SECONDS)
    try:
        with connect(deadline=deadline) as daemon:
            if not choice.pull:
                find_image(
                    daemon, engine.image, pull=False, platform=engine.platform, deadline=deadline
                )
    except ServingRepoError:
        return False
    return True
