"""The entry point: it loads the called command, and turns errors into messages and exit codes."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import servingrepo
from servingrepo.cli.app import App, discard_stdout
from servingrepo.cli.chosen import variable_behind
from servingrepo.cli.command import Group
from servingrepo.cli.options import shared_options
from servingrepo.cli.settings import read_settings
from servingrepo.errors import ServingRepoError, SettingsError, Stopped, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Release": {
        "scan": ("scan", "Show the SavedModel of a run directory, and its other files."),
        "promote": (
            "promote",
            "Publish a run's SavedModel as the next version, proven, and serve it.",
        ),
        "verify": ("verify", "Compare versions with their records, byte by byte."),
        "diff": ("diff", "Compare two versions, as their clients see them."),
        "contract": ("contract", "Show, pin or check the signatures that clients rely on."),
        "export": ("export", "Make a SavedModel from a Keras model."),
        "smoke": ("smoke", "Serve a version in a child process and send it requests."),
        "warmup": (
            "warmup",
            "Write the requests that servers replay before a version is available.",
        ),
    },
    "Serve": {
        "serve": ("serve", "Serve a version."),
        "unserve": ("unserve", "Stop serving a model."),
        "rollback": ("rollback", "Go back to the version served before."),
        "label": ("label", "Set or remove labels such as stable and canary."),
        "hold": ("hold", "Keep promotions from changing what a model serves."),
        "release-hold": ("release_hold", "Let promotions change again what a model serves."),
        "config": ("config", "Show, check or write models.config."),
        "status": ("status", "Show disk, config and servers side by side."),
        "reload": ("reload", "Make servers follow models.config, and wait until they do."),
        "run-server": (
            "run_server",
            "Run the embedded server, with tensorflow_model_server's flags.",
        ),
    },
    "Keep": {
        "doctor": ("doctor", "Say what is wrong with any tree, config, compose file or server."),
        "init": ("init", "Make a directory a model repository."),
        "adopt": ("adopt", "Take models under management where they lie."),
        "list": ("list", "List the models."),
        "show": ("show", "Show a model or a version."),
        "history": ("history", "Show who changed what, when and why."),
        "report": ("report", "Write the life of a model or of the repository as a page of HTML."),
        "mark-bad": ("mark_bad", "Mark a version bad, so that nothing serves it again."),
        "prune": ("prune", "Move old versions to the trash, or empty it."),
        "restore": ("restore", "Bring a pruned version back from the trash."),
        "recover": ("recover", "Clean up after commands that died."),
    },
}

BUG = 1
USAGE = 2


class Terminated(BaseException):
    """SIGTERM, as an exception: every `finally` cleans up, as for Ctrl-C."""


class Commands(Group):
    """The commands by group; a command's module is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return all names, in the order of the help."""
        return [name for group in COMMANDS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command. Underscores in its name count as hyphens."""
        name = cmd_name.replace("_", "-")
        for group in COMMANDS.values():
            if name in group:
                module = import_module(f"servingrepo.cli.{group[name][0]}")
                command: click.Command = module.command
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands by group without importing any."""
        for title, group in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, short) for name, (_, short) in group.items()])


@click.command(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
    epilog="""\b
Examples:
  servingrepo init
  servingrepo promote runs/2026_05_10_baseline --model ranker
  servingrepo rollback ranker --endpoint localhost:8500
  servingrepo status --endpoint localhost:8500""",
)
@shared_options
@click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    is_eager=True,
    expose_value=False,
    callback=read_settings,
    envvar="SERVINGREPO_SETTINGS",
    show_envvar=True,
    help="Settings file. [default: servingrepo.toml here, else in the root]",
)
@click.version_option(servingrepo.__version__, message="servingrepo %(version)s")
def main() -> None:
    """Promote, prove, serve and roll back SavedModels in a TensorFlow Serving model repository.

    Options come before environment variables, and these before servingrepo.toml. Every option of a command has a
    variable: for promote --model it is SERVINGREPO_PROMOTE_MODEL.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing a user can cause shows a traceback."""
    # gRPC's lines on stderr only repeat our errors in its own words.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # A command line that cannot be parsed needs an answer in JSON too.
    wanted = os.environ.get("SERVINGREPO_JSON", "").lower() in {"1", "true", "t", "yes", "y", "on"}
    app = App(json="--json" in arguments or wanted)
    try:
        try:
            with terminated_by_sigterm():
                code = main.main(
                    list(arguments), prog_name="servingrepo", standalone_mode=False, obj=app
                )
        except BaseException as error:  # noqa: BLE001 - every way to end has its exit code
            return explain(app, error)
    except BrokenPipeError:
        return nobody_reads()
    return code if isinstance(code, int) else 0


def end(code: int) -> None:
    """End the process, usually at once: to take hundreds of modules apart takes the interpreter 20 ms.

    The interpreter's own end comes where a thread still runs, or where output is left that cannot be written.
    """
    if threading.active_count() == 1:
        with contextlib.suppress(OSError, ValueError):
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(code)
    # Its last collection would visit every module only to find that all of it goes: 10 ms.
    gc.freeze()
    sys.exit(code)


def explain(app: App, error: BaseException) -> int:
    """Print how a command ended, and return its exit code."""
    match error:
        case ServingRepoError():
            app.failure(error)
            return error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            if app.json:
                path = error.ctx.command_path if error.ctx is not None else "servingrepo"
                app.failure(UsageError("Missing command.", hint=f"{path} --help"))
            else:
                click.echo(error.format_message(), err=True)
            return USAGE
        case click.ClickException():
            path = (
                error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
            )
            hint = f"{path or 'servingrepo'} --help"
            variable = variable_of(error)
            if variable is not None:
                bad = SettingsError(
                    f"the environment variable {variable} cannot be used: {error.message}",
                    hint=f"correct or unset it; {hint}",
                )
                app.failure(bad)
                return bad.exit_code
            app.failure(UsageError(error.format_message(), hint=hint))
            return USAGE
        case click.Abort() | KeyboardInterrupt() | Terminated():
            number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
            app.failure(
                Stopped(
                    f"stopped by {number.name}",
                    # click turns Ctrl-C into an error of its own: the notes are at its cause.
                    problems=getattr(error, "__notes__", ())
                    or getattr(error.__cause__, "__notes__", ()),
                    hint="an unfinished change was put back, or the next command that writes will do that",
                )
            )
            return 128 + number
        case SystemExit(code=0):  # click has answered the shell's question for completions
            return 0
        case SystemExit() | BrokenPipeError():  # click itself turns EPIPE into SystemExit
            return nobody_reads()
        case _:
            import traceback

            traceback.print_exception(error)
            app.failure(
                ServingRepoError(
                    f"this is a mistake in servingrepo: {type(error).__name__}: {error}",
                    hint="please report it with the lines above; the next command that writes cleans up",
                )
            )
            return BUG


def nobody_reads() -> int:
    """End without a message: the reader of the output has closed it, as `head` does."""
    discard_stdout()
    return 128 + signal.SIGPIPE


def variable_of(error: click.ClickException) -> str | None:
    """Return the environment variable that gave a bad value; None for another source."""
    if not isinstance(error, click.BadParameter) or error.param is None or error.ctx is None:
        return None
    return variable_behind(error.param, error.ctx)


@contextlib.contextmanager
def terminated_by_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that every `finally` runs."""

    def raise_it(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    previous: Any = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
