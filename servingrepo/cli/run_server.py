"""servingrepo run-server."""

from __future__ import annotations

import click


@click.command(
    "run-server",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run the embedded server: TensorFlow Serving's gRPC API, with tensorflow_model_server's flags.

    It serves what models.config says, on loopback only, for laptops, CI and compose tests. Its exit codes are
    tensorflow_model_server's.
    """
    from servingrepo.embedded import main

    ctx.exit(main(arguments))
