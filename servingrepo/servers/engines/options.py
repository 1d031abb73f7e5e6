"""What a user may set for a server that an engine starts: its flags, and how a container runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["refuse_engine_flags", "refuse_unknown_flags"]


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


ENGINE_FLAGS = frozenset(
    {
        "allow_version_labels_for_unavailable_models",
        "grpc_channel_arguments",
        "grpc_socket_path",
        "max_num_load_retries",
        "model_base_path",
        "model_config_file",
        "model_name",
        "port",
        "rest_api_port",
        # We talk in the clear to a server that we start.
        "ssl_config_file",
        "use_alts_credentials",
    }
)
"""What engines set or rely on. Of a flag that is given twice the last one counts: the server would not be found."""

_UNKNOWN = "unknown argument: "


def refuse_engine_flags(arguments: Iterable[str]) -> None:
    """Refuse flags that are the engine's.

    Raises:
        UsageError: There are some; all of them are named.
    """
    refused = [one for one in arguments if _name(one) in ENGINE_FLAGS]
    if refused:
        raise UsageError(
            f"--server-arg cannot be {', '.join(refused)}: the engine says itself where its server listens, what "
            "it serves and how it loads",
            hint="leave it out; a server with settings of your own is used with --engine remote:HOST:PORT",
        )


def refuse_unknown_flags(log: str) -> None:
    """Refuse to go on with a server that did not know a flag: it says so and starts all the same (main.cc).

    Raises:
        UsageError: It said so; its words are in the message.
    """
    for line in log.splitlines():
        if line.startswith(_UNKNOWN):
            raise UsageError(
                f"the server does not know a flag that --server-arg gave it, and says: {line.strip()}",
                hint="correct it, or leave it out; tensorflow_model_server --help lists them all",
            )


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]
