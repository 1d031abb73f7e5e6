"""A stand-in for tensorflow_model_server, where there is no Docker and no such binary.

Job: answer gRPC as TensorFlow Serving 2.19.1 does, over the same files and the same flags, unfortunate
behaviour included. The state machine (`manager`, `core` and what they import) knows neither TensorFlow nor
gRPC; TensorFlow is one implementation of `runtime.Runtime`, reached through its C API in `capi`. It decides
nothing about repositories: it serves what a config file tells it to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run the server with tensorflow_model_server's arguments until it is told to stop.

    Args:
        argv: What follows the program's name on the command line.

    Returns:
        tensorflow_model_server's exit code: 0 after `--version`, 255 if it could not start. A running server
        does not return: it ends by the signal that stopped it.
    """
    # Not at the top: `--help` of the command line must not pay for grpc.
    from servingrepo.embedded.server import run

    return run(argv)
