"""Options for a server that an engine starts: the server's flags, and how a container runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec

from servingrepo.errors import UsageError
from servingrepo.options import Option
from servingrepo.servers.security import PLAIN, Security

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["refuse_engine_flags", "refuse_unknown_flags"]


_shape = partial(Option, section="proof", tables=("models",))


class ContainerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a container. For None, the daemon or the image decides.

    Raises:
        UsageError: A flag for the server is one that engines set.
    """

    image: Annotated[
        str | None,
        _shape(
            help="The container's image, by tag or digest [default: tensorflow/serving:2.19.1]; for remote the image "
            "that the server has, which is recorded as declared.",
            metavar="IMAGE",
            env="SERVINGREPO_ENGINE_IMAGE",
        ),
    ] = None
    pull: Annotated[bool, _shape(help="Pull the image if the daemon does not have it.")] = False
    platform: Annotated[
        str | None, _shape(help="The image's platform, such as linux/arm64.", metavar="OS/ARCH")
    ] = None
    gpus: Annotated[str | None, _shape(help="GPUs for the container.", metavar="all|N")] = None
    memory: Annotated[
        str | None, _shape(help="Memory for the container, such as 2g.", metavar="SIZE")
    ] = None
    network: Annotated[
        str | None,
        _shape(
            help="The container's Docker network; none is a network without connections.",
            flags="--docker-network",
            key="docker_network",
            metavar="NAME",
            env="SERVINGREPO_DOCKER_NETWORK",
        ),
    ] = None
    user: Annotated[
        str | None,
        _shape(
            help="The server's user in the container.",
            flags="--docker-user",
            key="docker_user",
            metavar="UID[:GID]",
        ),
    ] = None
    arguments: Annotated[
        tuple[str, ...],
        _shape(
            help="A flag for the server, such as --tensorflow_inter_op_parallelism=2; repeatable.",
            flags="--server-arg",
            key="server_args",
            metavar="FLAG",
        ),
    ] = ()

    def __post_init__(self) -> None:
        """Refuse flags that the engine sets itself. A server would notice them only after the whole time-out."""
        refuse_engine_flags(self.arguments)


class EngineChoice(ContainerOptions, frozen=True, kw_only=True):
    """A user's choice of an engine: its name, the options of a container, the security of a remote server."""

    name: Annotated[
        str,
        Option(
            help="The engine of the smoke test: docker, binary[:PATH], embedded, remote:HOST:PORT. auto is docker if "
            "the image is there, else a tensorflow_model_server on PATH, else embedded.",
            section="proof",
            leads=True,
            flags="--engine",
            key="engine",
            metavar="ENGINE",
            env="SERVINGREPO_ENGINE",
            shows=("default",),
            tables=("top", "models"),
        ),
    ] = "auto"
    security: Security = PLAIN


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
    names = {flag: flag.lstrip("-").partition("=")[0] for flag in arguments}
    refused = [flag for flag, name in names.items() if name in ENGINE_FLAGS]
    if refused:
        raise UsageError(
            f"--server-arg cannot be {', '.join(refused)}: the engine says itself where its server listens, what "
            "it serves and how it loads",
            hint="leave it out; for a server with settings of your own use --engine remote:HOST:PORT",
        )


def refuse_unknown_flags(log: str) -> None:
    """Refuse a server that does not know a flag: it prints that and starts nevertheless (main.cc).

    Raises:
        UsageError: It printed so; the message quotes it.
    """
    for line in log.splitlines():
        if line.startswith(_UNKNOWN):
            raise UsageError(
                f"the server does not know a flag of --server-arg: {line.strip()}",
                hint="correct it, or leave it out; tensorflow_model_server --help lists them all",
            )
