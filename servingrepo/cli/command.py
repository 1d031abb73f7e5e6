"""What every command and group has: shared options, environment twins, examples at the end of the help."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from servingrepo.cli.app import App
from servingrepo.cli.flag import Sectioned
from servingrepo.cli.options import env_twins, shared_options

if TYPE_CHECKING:
    from collections.abc import Callable


class Group(click.Group):
    """Commands by name: hyphens and underscores are alike, and `--json` gets to know the name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; its own name counts from here on, not the spelling that was typed."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # only who mistypes waits for it

            close = get_close_matches(args[0], self.list_commands(ctx))
            if not close:
                raise
            said = f"{error.format_message()} Did you mean {' or '.join(close)}?"
            raise click.UsageError(said, ctx=error.ctx) from error
        if command is not None:
            app = ctx.ensure_object(App)
            app.command = f"{app.command} {command.name}".strip()
            name = command.name
        return name, command, rest


def command(
    name: str, *, examples: str, group: str = ""
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command with the shared options.

    Args:
        name: The command's name.
        examples: One line each, shown at the end of the help.
        group: The name of the command that it belongs to, if not the top.
    """

    def wrap(function: Callable[..., Any]) -> click.Command:
        @wraps(function)
        def called(*args: Any, **options: Any) -> Any:
            click.get_current_context().ensure_object(App).name_settings()
            return function(*args, **options)

        lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
        made: click.Command = click.command(
            name,
            cls=Sectioned,
            epilog=f"\b\nExamples:\n{lines}",
            context_settings={"show_default": False},
        )(called)
        env_twins(f"{group} {name}".strip(), made.params)
        return shared_options(made)

    return wrap
