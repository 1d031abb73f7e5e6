"""servingrepo init."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

import servingrepo
from servingrepo.cli.app import versions_shown
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.modelconfig.paths import START_FLAGS
from servingrepo.options import Option
from servingrepo.repository.repository import DEFAULT_SERVER_ROOT
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.cli.app import App
    from servingrepo.repository.listing import UnmanagedModel
    from servingrepo.repository.repository import Repository

_MOST_MODELS = 20


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that a new repository needs."""

    models: Annotated[
        Path | None,
        Option(
            help="The models directory, if it is not ROOT/models; it must exist.",
            metavar="DIR",
            kind="folder",
        ),
    ] = None
    server_root: Annotated[
        str | None,
        Option(
            help="The models directory as TensorFlow Serving sees it. [default: as the base paths in a models.config "
            f"that is there, else {DEFAULT_SERVER_ROOT}, as in its container]",
            env="SERVINGREPO_SERVER_ROOT",
            shows=("env",),
        ),
    ] = None


@make(
    "init",
    examples="""
    servingrepo --root /srv/serving init
    servingrepo --root /srv/serving init --server-root /srv/serving/models
    servingrepo --root /srv/serving init --models /data/models""",
)
@takes(wanted=Wanted)
@click.pass_obj
def command(app: App, wanted: Wanted) -> None:
    """Make a directory a model repository, with a models.config that a server can start with.

    A directory that is a repository already stays as it is. Models and a models.config that are there are listed and
    stay as they are. Mount the models directory on servers, never models.config alone: a bind-mounted file keeps its
    old text.
    """
    disk = Disk(faults=Faults.parse(app.faults))
    repo, made = servingrepo.init(
        app.root,
        server_root=wanted.server_root,
        models=wanted.models,
        disk=disk,
        lock_wait=app.lock_wait,
    )
    layout, server_root = repo.value.layout, repo.value.server_root
    guessed = made and wanted.server_root is None and server_root != DEFAULT_SERVER_ROOT
    start = (f"--model_config_file={server_root}/models.config", *START_FLAGS)
    found, foreign = _found(repo.value)
    what_next = _next(repo.value, found, foreign=foreign)
    app.result(
        {
            "root": str(repo.root),
            "created": made,
            "server_root": server_root,
            "server_root_guessed": guessed,
            "models": str(layout.models),
            "config": repo.value.config_name,
            "start_with": start,
            "found": found,
        },
        [
            f"{repo.root} is {'now' if made else 'already'} a model repository",
            f"  servers mount  {layout.models} as {server_root}",
            *(
                ["                 (guessed from the base paths in models.config)"]
                if guessed
                else []
            ),
            f"  and start with {start[0]}",
            f"                 {' '.join(start[1:])}",
            *_say_found(found),
            *what_next,
        ],
        bare=repo.root,
    )
    if not made:
        _say_unchanged(app, wanted, repo.value)


def _say_unchanged(app: App, wanted: Wanted, repo: Repository) -> None:
    """Say what of the options an existing repository did not get."""
    if wanted.server_root not in {None, DEFAULT_SERVER_ROOT, repo.server_root}:
        app.note(
            f"the server root was not changed: servingrepo config write --server-root {wanted.server_root} does that"
        )
    if wanted.models is not None and wanted.models.absolute() != repo.layout.models:
        app.note(f"the models directory was not changed: it is {repo.layout.models}")


def _found(repo: Repository) -> tuple[tuple[UnmanagedModel, ...], bool]:
    """Return what is there that servingrepo does not manage, and whether models.config is that of others."""
    from servingrepo.modelconfig import Stamp, read_stamp
    from servingrepo.repository.config import config_text, read_config_or_why
    from servingrepo.repository.listing import unmanaged_models

    foreign = read_stamp(config_text(repo)) is Stamp.FOREIGN
    return unmanaged_models(repo, read_config_or_why(repo).config), foreign


def _say_found(found: Sequence[UnmanagedModel]) -> Iterator[str]:
    for one in found[:_MOST_MODELS]:
        versions = (
            f"versions {versions_shown(one.versions)}" if one.versions else "no versions here"
        )
        entry = (
            f", base path {one.base_path}, policy {one.policy}" if one.base_path else ", no entry"
        )
        yield f"  found          {one.model}: {versions}{entry}"
    if len(found) > _MOST_MODELS:
        yield f"  found          and {len(found) - _MOST_MODELS} more models: servingrepo list"
    if found:
        yield "                 all of it is unmanaged: servingrepo shows it and changes nothing of it"


def _next(repo: Repository, found: Sequence[UnmanagedModel], *, foreign: bool) -> Iterator[str]:
    """Yield the command to type next. What was there before must be adopted first."""
    if foreign:
        yield f"  {repo.config_name} existed before and stays as it is: promote refuses to replace it"
    if any(one.versions for one in found):
        yield "  next           servingrepo adopt --all takes it under management where it lies"
        yield "                 (servingrepo doctor says what is wrong with it)"
    elif foreign:
        yield "  next           servingrepo config check, then servingrepo config write --take-edit"
    else:
        yield "  next           servingrepo promote RUN --model NAME"
