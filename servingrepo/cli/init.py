"""servingrepo init."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import click
import msgspec

import servingrepo
from servingrepo.cli.command import command as make
from servingrepo.cli.options import takes
from servingrepo.modelconfig.paths import START_FLAGS
from servingrepo.options import Option
from servingrepo.repository.repository import DEFAULT_SERVER_ROOT
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.cli.app import App
    from servingrepo.repository.repository import Repository


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that a new repository needs."""

    server_root: Annotated[
        str,
        Option(
            help="The models directory as TensorFlow Serving sees it: /models in its container.",
            env="SERVINGREPO_SERVER_ROOT",
            shows=("default", "env"),
        ),
    ] = DEFAULT_SERVER_ROOT


@make(
    "init",
    examples="""
    servingrepo --root /srv/serving init
    servingrepo --root /srv/serving init --server-root /srv/serving/models""",
)
@takes(wanted=Wanted)
@click.pass_obj
def command(app: App, wanted: Wanted) -> None:
    """Make a directory a model repository, with a models.config that a server can start with.

    A directory that is a repository already stays as it is. Mount the models directory on servers, never
    models.config alone: a bind-mounted file keeps its old text.
    """
    disk = Disk(faults=Faults.parse(app.faults))
    repo, made = servingrepo.init(
        app.root, server_root=wanted.server_root, disk=disk, lock_wait=app.lock_wait
    )
    layout = repo.value.layout
    start = (f"--model_config_file={repo.value.server_root}/models.config", *START_FLAGS)
    app.result(
        {
            "root": str(repo.root),
            "created": made,
            "server_root": repo.value.server_root,
            "models": str(layout.models),
            "config": repo.value.config_name,
            "start_with": start,
        },
        [
            f"{repo.root} is {'now' if made else 'already'} a model repository",
            f"  servers mount  {layout.models} as {repo.value.server_root}",
            f"  and start with {start[0]}",
            f"                 {' '.join(start[1:])}",
            *_next(repo.value),
        ],
        bare=repo.root,
    )
    if not made and wanted.server_root not in {DEFAULT_SERVER_ROOT, repo.value.server_root}:
        app.note(
            f"the server root was not changed: servingrepo config write --server-root {wanted.server_root} does that"
        )


def _next(repo: Repository) -> Iterator[str]:
    """Yield the command to type next. Models from before can be adopted."""
    from servingrepo.modelconfig import Stamp, read_stamp
    from servingrepo.repository.config import config_text

    if read_stamp(config_text(repo)) is Stamp.FOREIGN:
        yield f"  {repo.config_name} existed before and stays as it is until its models are adopted"
        yield "  next           servingrepo adopt --all; for the file alone: servingrepo config write --take-edit"
    else:
        yield "  next           servingrepo promote RUN --model NAME"
