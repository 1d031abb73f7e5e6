from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

import servingrepo
from servingrepo.cli.main import COMMANDS, main
from tests.cli import inside
from tests.support import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = [name for group in COMMANDS.values() for name in group]
WITHOUT_OPTIONS = {"run-server"}
"""Has tensorflow_model_server's flags instead of ours."""


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command by what a user types."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        one = group.get_command(ctx, name)
        assert one is not None
        yield f"{prefix}{name}", one
        if isinstance(one, click.Group):
            yield from commands(one, f"{prefix}{name} ")


EVERY = dict(commands(main))


def test_help_lists_every_command_with_the_verb_of_its_own_help() -> None:
    done = command("--help")
    assert done.code == 0
    assert done.err == ""
    for name in NAMES:
        assert f"\n  {name} " in done.out
    for group in COMMANDS.values():
        for name, (_, short) in group.items():
            assert (EVERY[name].help or "").split()[0] == short.split()[0], name


@pytest.mark.parametrize("name", [name for name in EVERY if name not in WITHOUT_OPTIONS])
def test_every_command_has_help_with_an_example_that_starts_as_it_is_typed(name: str) -> None:
    short = inside.command(*name.split(), "-h")
    assert short.code == 0
    assert inside.command(*name.split(), "--help").out == short.out
    _, _, examples = short.out.partition("Examples:")
    assert f" {name} " in f"{examples} ".replace("\n", " \n ")
    assert all("servingrepo " in line for line in examples.splitlines() if line.strip()), (
        "an example is a line to type"
    )


def test_every_option_says_what_it_does_in_the_help() -> None:
    for name, one in EVERY.items():
        for param in one.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert param.help, f"{name} {param.opts}"


def test_every_option_of_a_command_has_the_variable_that_is_named_after_it() -> None:
    shared = {"--root", "--json", "-q", "-v", "--lock-wait", "--failpoints"}
    for name, one in EVERY.items():
        for param in one.params:
            if isinstance(param, click.Option) and not shared & set(param.opts):
                option = max(param.opts, key=len).lstrip("-")
                twin = f"SERVINGREPO_{name}_{option}".upper().replace(" ", "_").replace("-", "_")
                assert twin in (param.envvar or ()), f"{name} --{option}"


def test_help_of_the_server_lists_its_flags() -> None:
    done = command("run-server", "--help")
    assert "--model_config_file=" in done.out + done.err


def test_version_is_the_package_s() -> None:
    done = command("--version")
    assert (done.code, done.out) == (0, f"servingrepo {servingrepo.__version__}\n")


def test_without_a_command_the_help_is_shown_as_a_usage_error() -> None:
    done = command()
    assert done.code == 2
    assert done.out == ""
    assert "Usage: servingrepo" in done.err


@pytest.mark.parametrize("typed", [["nosuch"], ["config", "nosuch"], ["promot"]])
def test_unknown_command_is_a_usage_error_that_says_where_to_look(typed: list[str]) -> None:
    done = command(*typed)
    assert done.code == 2
    assert done.out == ""
    assert typed[-1] in done.err
    assert "--help" in done.err


def test_underscores_are_taken_for_hyphens_in_commands_and_options(root: Path) -> None:
    plain = command("--root", root, "mark-bad", "ranker@1", "--dry-run", "--lock-wait", "1")
    other = command("--root", root, "mark_bad", "ranker@1", "--dry_run", "--lock_wait", "1")
    assert plain.code == 0
    assert (plain.out, plain.err) == (other.out, other.err)


def test_root_may_stand_before_or_behind_the_command(root: Path) -> None:
    assert command("--root", root, "list").out == command("list", "--root", root).out
    behind = command("--root", root / "nowhere", "list", "--root", root)
    assert behind.code == 0, "the one behind the command is the nearer one"


def test_completion_knows_the_commands() -> None:
    asked = {
        "COMP_WORDS": "servingrepo roll",
        "COMP_CWORD": "1",
        "_SERVINGREPO_COMPLETE": "bash_complete",
    }
    done = command(env=asked)
    assert (done.code, done.out) == (0, "plain,rollback\n")


def test_help_has_arguments_in_the_usage_alone() -> None:
    shown = inside.command("status", "--help").out
    assert shown.startswith("Usage: servingrepo status [OPTIONS] [NAME]\n")
    assert "\n  [NAME]" not in shown
