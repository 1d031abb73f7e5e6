"""servingrepo config show, check and write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from servingrepo.cli.command import Group
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.errors import ConfigEdited, ConfigInvalid, UsageError
from servingrepo.fleet.options import DRY_RUN
from servingrepo.modelconfig.paths import LABELS_FLAG, WITHOUT_LABELS_FLAG
from servingrepo.options import Option

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.cli.app import App
    from servingrepo.modelconfig import Finding


@click.group(
    "config",
    cls=Group,
    epilog="""\b
Examples:
  servingrepo config show
  servingrepo config check
  servingrepo config write --dry-run""",
)
def command() -> None:
    """Show, check or write models.config, the file that TensorFlow Serving reads."""


@make("show", group="config", examples="servingrepo config show")
@click.pass_obj
def show(app: App) -> None:
    """Print models.config as it is, even if servers cannot read it."""
    from servingrepo.modelconfig import read_stamp
    from servingrepo.repository.config import config_text

    repo = app.open().value
    text = config_text(repo)
    app.result(
        {"path": repo.config_name, "text": text, "written_by": read_stamp(text).value},
        text.splitlines(),
        bare=text.rstrip("\n"),
    )


@make(
    "check",
    group="config",
    examples="""
    servingrepo config check
    servingrepo config check ./models.config""",
)
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.pass_obj
def check(app: App, file: Path | None) -> None:
    """Find entries in models.config that TensorFlow Serving refuses, hangs on or reads in an unexpected way.

    Base paths below the server root are checked on this disk. For a FILE of your own the disk is not checked.
    """
    from servingrepo import modelconfig
    from servingrepo.repository.config import (
        check_config,
        edited,
        read_config,
        unseen_base_paths,
    )
    from servingrepo.storage.disk import storage_errors
    from servingrepo.storage.reading import read_whole

    problems: list[str] = []
    unseen: tuple[str, ...] = ()
    if file is not None:
        with storage_errors("read", file):
            text = modelconfig.decode(read_whole(file), source=str(file))
        config = modelconfig.parse(text, source=str(file))
        findings = modelconfig.check(config)
        where = str(file)
    else:
        repo = app.open().value
        found = read_config(repo)
        config = found.config
        findings = check_config(repo, config)
        unseen = unseen_base_paths(repo, config)
        where = repo.config_name
        if found.stamp is not modelconfig.Stamp.UNEDITED:
            problems = [edited(repo, found).message, *edited(repo, found).problems]
    errors = [one for one in findings if one.severity == "error"]
    lines = _lines(findings)
    if errors:
        raise ConfigInvalid(
            f"{where} has {len(errors)} mistake{'s' if len(errors) > 1 else ''}",
            problems=[*lines, *problems],
            hint="correct them, then servingrepo config check again",
            details={"findings": findings},
        )
    if problems:
        raise ConfigEdited(
            problems[0],
            problems=[*lines, *problems[1:]],
            hint="servingrepo config write --take-edit keeps the edit, --discard-edit undoes it",
            details={"findings": findings},
        )
    checked = "not checked" if file is not None else "checked"
    if unseen:
        checked += f", except {', '.join(unseen)}: not below the server root"
    labelled = any(one.labels for one in modelconfig.models(config))
    if labelled:
        lines.append(f"note: {WITHOUT_LABELS_FLAG}")
    app.result(
        {
            "path": where,
            "findings": findings,
            "base_paths_not_looked_at": unseen,
            "servers_need": [LABELS_FLAG] if labelled else [],
        },
        [*lines, f"{where}: no mistakes; base paths on disk: {checked}"],
        bare="ok",
    )


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How models.config is written."""

    take_edit: Annotated[
        bool, Option(help="Keep an edit by hand, or a config that servingrepo did not write.")
    ] = False
    discard_edit: Annotated[bool, Option(help="Go back to the last text of servingrepo.")] = False
    server_root: Annotated[
        str | None,
        Option(help="The models directory as servers see it from now on; changes all base paths."),
    ] = None
    dry_run: Annotated[bool, DRY_RUN] = False


@make(
    "write",
    group="config",
    examples="""
    servingrepo config write --dry-run
    servingrepo config write --take-edit
    servingrepo config write --server-root /srv/models""",
)
@takes(wanted=Wanted)
@click.pass_obj
def write(app: App, wanted: Wanted) -> None:
    """Write models.config again, in canonical form. Only an option keeps or undoes an edit by hand.

    A backup in .servingrepo keeps the text that this replaces.
    """
    from servingrepo.repository.config_write import rewrite

    if wanted.take_edit and wanted.discard_edit:
        raise UsageError(
            "--take-edit and --discard-edit contradict each other", hint="give one of them"
        )
    repo = app.open().value
    done = rewrite(
        repo,
        edit="take" if wanted.take_edit else "discard" if wanted.discard_edit else "refuse",
        server_root=wanted.server_root,
        dry_run=wanted.dry_run,
    )
    lines = [*done.diff.splitlines(), *_lines(done.findings)]
    would = "would be " if wanted.dry_run else ""
    lines.append(
        f"{repo.config_name} {would}written"
        if done.changed
        else f"{repo.config_name}: nothing to change"
    )
    if done.backup:
        lines.append(f"  the text it replaced: {done.backup}")
    app.result(done, lines, bare="written" if done.changed else "unchanged")


def _lines(findings: Iterable[Finding]) -> list[str]:
    """Return each finding, with its hint on a line of its own."""
    return [
        line for one in findings for line in (str(one), *([f"  {one.hint}"] if one.hint else []))
    ]


for _one in (show, check, write):
    command.add_command(_one)
