"""The click class of every command: shared options, and examples at the end of the help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from servingrepo.cli.options import shared_options

if TYPE_CHECKING:
    from collections.abc import Callable


def command(name: str, *, examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command with the shared options.

    Args:
        name: The command's name.
        examples: One line each, shown at the end of the help.
    """

    def wrap(function: Callable[..., Any]) -> click.Command:
        lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
        made: click.Command = click.command(
            name, epilog=f"\b\nExamples:\n{lines}", context_settings={"show_default": False}
        )(function)
        return shared_options(made)

    return wrap
