"""servingrepo run-server."""

from __future__ import annotations

import os
import sys

import click

from servingrepo.children import environment, python


@click.command(
    "run-server",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the embedded server: TensorFlow Serving's gRPC API, with tensorflow_model_server's flags.

    It serves the versions of models.config, on loopback only, for laptops, CI and compose tests. Its exit codes are
    those of tensorflow_model_server.
    """
    # The server is a program of its own: it takes over this process, with its id, signals and files.
    program = [*python("servingrepo.embedded"), *arguments]
    os.execve(sys.executable, program, environment())  # nosec B606 # noqa: S606 - our own module
