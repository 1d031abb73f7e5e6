"""Options for click that keep the Option of their field, and a help that shows options in sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from servingrepo.options import Section

if TYPE_CHECKING:
    from servingrepo.options import Option


class Flag(click.Option):
    """An option of a command, with its Option."""

    def __init__(self, *args: Any, option: Option, field: str = "", **keywords: Any) -> None:
        keywords |= {
            "help": option.help,
            "metavar": option.metavar,
            "envvar": option.env or None,
            "show_default": "default" in option.shows,
            "show_envvar": "env" in option.shows,
        }
        super().__init__(*args, **keywords)
        self.option, self.field = option, field


class Sectioned(click.Command):
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section that has options. `--help` is in the section of the output."""
        lines: dict[str, list[tuple[str, str]]] = {one: [] for one in get_args(Section)}
        for param in sorted(self.get_params(ctx), key=_follows):
            line = param.get_help_record(ctx)
            # click 8.5 has a line for arguments too: ours are explained above the options.
            if line is not None and not isinstance(param, click.Argument):
                lines[param.option.section if isinstance(param, Flag) else "output"].append(line)
        for section, shown in lines.items():
            if shown:
                with formatter.section(section.capitalize()):
                    formatter.write_dl(shown)


def _follows(param: click.Parameter) -> bool:
    return not (isinstance(param, Flag) and param.option.leads)
