"""The flags' meaning before the server starts: refusals, addresses, session options.

After model_servers/server.cc, BuildAndStart, with the real server's texts where it has them.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from servingrepo.embedded.flags import FLAGS
from servingrepo.embedded.status import OK, Code, Status, invalid
from servingrepo.embedded.wire import varint

if TYPE_CHECKING:
    from servingrepo.embedded.flags import Arguments

__all__ = ["addresses", "cannot_listen", "check", "session_config", "tags", "warn_of_ignored"]

logger = logging.getLogger(__name__)


def addresses(arguments: Arguments) -> list[str]:
    """Return the addresses to listen on, in gRPC's notation."""
    port, path = arguments.number("port"), arguments.text("grpc_socket_path")
    tcp = [f"{arguments.text('bind_address')}:{port}"] if port else []
    return tcp + ([f"unix:{path}"] if path else [])


def check(arguments: Arguments) -> Status:
    """Refuse combinations of flags that cannot work, and a port in use."""
    session, intra, inter = _parallelism(arguments)
    config_file, base_path = arguments.text("model_config_file"), arguments.text("model_base_path")
    wrong = {
        "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.": (
            not addresses(arguments)
        ),
        "Either use_alts_credentials must be false or ssl_config_file must be empty.": (
            arguments.truth("use_alts_credentials") and bool(arguments.text("ssl_config_file"))
        ),
        "Both server_options.model_base_path and server_options.model_config_file are empty!": (
            not base_path and not config_file
        ),
        "server_options.batching_parameters_file is set without setting "
        "server_options.enable_batching to true.": (
            bool(arguments.text("batching_parameters_file"))
            and not arguments.truth("enable_batching")
        ),
        "Either configure server_options.tensorflow_session_parallelism or "
        "(server_options.tensorflow_intra_op_parallelism, "
        "server_options.tensorflow_inter_op_parallelism) separately. You cannot configure all.": (
            session > 0 and intra > 0 and inter > 0
        ),
    }
    for text, applies in wrong.items():
        if applies:
            return invalid(text)
    if arguments.truth("use_alts_credentials"):
        # To serve without encryption although the user asked for it would be dangerous.
        text = "the embedded server has no ALTS: it would serve in the clear"
        return Status(Code.UNIMPLEMENTED, text)
    return _check_port(arguments)


def cannot_listen(address: str, error: Exception) -> Status:
    """Return the error for an address that cannot be bound."""
    return invalid(f"Failed to BuildAndStart gRPC server: cannot listen on {address}: {error}")


def tags(arguments: Arguments) -> tuple[str, ...]:
    """Return the tags of the MetaGraph to load."""
    text = arguments.text("saved_model_tags")
    return tuple(text.split(",")) if text else ("serve",)


def session_config(arguments: Arguments) -> bytes:
    """Return a serialized ConfigProto with the numbers of threads."""
    session, intra, inter = _parallelism(arguments)
    if intra <= 0 and inter <= 0:
        intra = inter = session
    # Fields 2, intra_op_parallelism_threads, and 5, inter_op_parallelism_threads (config.proto).
    parts = ((b"\x10", intra), (b"\x28", inter))
    return b"".join(tag + varint(number) for tag, number in parts if number > 0)


def warn_of_ignored(arguments: Arguments) -> None:
    """Log a line for each given flag of the real server that has no effect here."""
    for flag in FLAGS:
        given = flag.name in arguments.given and arguments.values[flag.name] != flag.default
        if given and not flag.done:
            logger.warning("--%s is ignored: %s", flag.name, flag.help)


def _parallelism(arguments: Arguments) -> tuple[int, int, int]:
    session = arguments.number("tensorflow_session_parallelism")
    intra = arguments.number("tensorflow_intra_op_parallelism")
    inter = arguments.number("tensorflow_inter_op_parallelism")
    return session, intra, inter


def _check_port(arguments: Arguments) -> Status:
    # The real server finds out after all loads. Without listen(2), no client sees this.
    host, port = arguments.text("bind_address"), arguments.number("port")
    if not port:
        return OK
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except (OSError, OverflowError) as error:
            return cannot_listen(f"{host}:{port}", error)
    return OK
