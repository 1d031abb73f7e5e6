"""How a container shall run: what a user asks for, and what the docker engine does. A value only."""

from __future__ import annotations

import msgspec

from servingrepo.servers.engines.server_arguments import refuse_engine_flags


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

    Raises:
        UsageError: A flag for the server is one that engines set.
    """

    image: str | None = None
    pull: bool = False
    platform: str | None = None
    gpus: str | None = None
    memory: str | None = None
    network: str | None = None
    user: str | None = None
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse flags that are the engine's: found out by a server, they would cost the whole time-out."""
        refuse_engine_flags(self.arguments)
