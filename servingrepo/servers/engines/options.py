"""Options for a server that an engine starts: the server's flags, and how a container runs."""

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
        pull: Whether to pull a missing image.
        platform: `linux/arm64` and the like; None is the daemon's own.
        gpus: "all", a number, or nothing.
        memory: As docker takes it: "2g".
        network: The Docker network of the container; with `none` it is reached through a socket in a mount.
        user: The server's user in the container: "1000:1000".
        arguments: More flags for the server.

    Raises:
        UsageError: An argument is a flag that engines set.
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
        """Refuse the engine's flags now: with them a server would fail at the end of the time-out."""
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
        # We use no encryption with a server that we start.
        "ssl_config_file",
        "use_alts_credentials",
    }
)
"""Flags that engines set or rely on. The last of two flags counts, so that of a user would hide the server."""

_UNKNOWN = "unknown argument: "


def refuse_engine_flags(arguments: Iterable[str]) -> None:
    """Refuse flags that engines set.

    Raises:
        UsageError: There are such flags; the message names them all.
    """
    refused = [flag for flag in arguments if _name(flag) in ENGINE_FLAGS]
    if refused:
        raise UsageError(
            f"--server-arg cannot be {', '.join(refused)}: the engine says itself where its server listens, what "
            "it serves and how it loads",
            hint="leave it out; a server with settings of your own is used with --engine remote:HOST:PORT",
        )


def refuse_unknown_flags(log: str) -> None:
    """Refuse a server that does not know a flag: it prints that and starts nevertheless (main.cc).

    Raises:
        UsageError: It printed so; the message quotes it.
    """
    for line in log.splitlines():
        if line.startswith(_UNKNOWN):
            raise UsageError(
                f"the server does not know a flag that --server-arg gave it, and says: {line.strip()}",
                hint="correct it, or leave it out; tensorflow_model_server --help lists them all",
            )


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]
