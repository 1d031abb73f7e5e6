"""The embedded server as a program: `python -m servingrepo.embedded`, with tensorflow_model_server's arguments.

After model_servers/main.cc: exit codes and the texts on standard output are the real server's.
"""

from __future__ import annotations

import importlib.metadata
import sys

from servingrepo import __version__
from servingrepo.embedded.flags import FAILED, parse, usage

PROGRAM = "servingrepo run-server"


def main() -> int:
    """Run the server until a signal ends it; return 0 after `--version`, and 255 if the server cannot start."""
    arguments = parse(sys.argv[1:])
    if isinstance(arguments, str):
        sys.stderr.write(arguments + "\n")
    if isinstance(arguments, str) or arguments.rest[:1] == ("--help",):
        sys.stdout.write(usage(PROGRAM))
        return FAILED
    if arguments.truth("version"):
        sys.stdout.write(
            f"TensorFlow ModelServer: servingrepo {__version__} (embedded, after 2.19.1)\n"
            f"TensorFlow Library: {_tensorflow_version()}\n"
        )
        return 0
    if arguments.rest:
        sys.stdout.write(f"unknown argument: {arguments.rest[0]}\n{usage(PROGRAM)}")
        sys.stdout.flush()
    from servingrepo.embedded.server import serve  # imports grpc

    return serve(arguments)


def _tensorflow_version() -> str:
    try:
        return importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
