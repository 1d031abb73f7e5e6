"""Commands and groups for click: with shared options, environment variables and examples in the help."""

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
    """Commands by name. Hyphens and underscores are alike. The App gets the name, for `--json`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and use its own name instead of the typed spelling."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches  # few calls have a typing error

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
        group: The name of the group that it belongs to, if any.
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
