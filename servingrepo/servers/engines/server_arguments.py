"""The user's own flags for a server that an engine starts: which are refused, and which the server does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["refuse_engine_flags", "refuse_unknown_flags"]

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
