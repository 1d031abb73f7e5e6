"""How a container shall run: what a user asks for, and what the docker engine does. A value only."""

from __future__ import annotations

import msgspec


class ContainerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a container.

    Attributes:
        image: By tag or digest; None is the engine's own.
        pull: Whether an image that is not there may be pulled.
        platform: `linux/arm64` and the like; None is the daemon's own.
        gpus: "all", a number, or nothing.
        memory: As docker takes it: "2g".
        network: The Docker network that the container joins; `none` talks through a socket in a mount.
        user: Who the server runs as in the container: "1000:1000".
        arguments: More flags for the server.
    """

    image: str | None = None
    pull: bool = False
    platform: str | None = None
    gpus: str | None = None
    memory: str | None = None
    network: str | None = None
    user: str | None = None
    arguments: tuple[str, ...] = ()
