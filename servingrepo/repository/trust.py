"""Trust: which other users could have written in the repository, by owners, modes and links.

As with Git, the file system draws the boundary: users who may write in the repository's folders are trusted. So no
file is refused because of its owner. `status` reports files that another user could have written or changed.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from servingrepo.errors import BadName, RepositoryDamaged
from servingrepo.repository import journal
from servingrepo.repository.layout import STAGING_NAME, overlaps
from servingrepo.repository.repository import (
    Repository,
    model_names,
    version_names,
)
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.reading import names_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def notes(repo: Repository) -> Iterator[str]:
    """Yield warnings about the repository's files; none of them changes what is served.

    Folders and files that the group may write get no warning: people share repositories that way.
    """
    for _, why in journal.unreadable(repo.layout.journal):
        yield f"{why}; its command may lack a line of history: read the file, then remove it"
    layout = repo.layout
    owner = _facts(layout.own)
    owners = {0, owner.st_uid if owner is not None else os.geteuid()}
    ours = model_names(repo)
    places = dict.fromkeys(folder for name in ours for folder in layout.folders(name))
    folders = [layout.root, layout.models, layout.own, layout.journal, layout.states, *places]
    files = [layout.config, layout.format, layout.history, layout.lock]
    for path in (*folders, *files, *map(layout.state, ours)):
        facts = _facts(path)
        if facts is None:
            continue
        if stat.S_ISLNK(facts.st_mode):
            yield f"{path} is a link to {path.readlink()}"
        elif facts.st_mode & stat.S_IWOTH:
            yield f"everybody may write to {path}: chmod o-w {path}"
        if facts.st_uid not in owners:
            yield f"{path} belongs to uid {facts.st_uid}, and the repository to uid {min(owners - {0}, default=0)}"
    for name in sorted(layout.paths.keys() - set(layout.paths.values())):
        other = layout.models / name
        if version_names(other):
            yield f"{other} has versions of no model: those of {name} are in {layout.model(name)}"


def refuse_links(repo: Repository, model: str) -> None:
    """Refuse to publish through a link: the files behind it may be on another disk or another user's.

    Servers that mount the models directory cannot follow such a link. And we could not rename a staging copy from
    behind a link into its place, or remove it without touching the files beside it.

    Raises:
        RepositoryDamaged: The model's folder, one that it lies in, or its staging folder is a link.
    """
    for path in (*repo.layout.folders(model), repo.layout.model(model) / STAGING_NAME):
        with storage_errors("read", path):
            if path.is_symlink():
                raise RepositoryDamaged(
                    f"{path} is a link, to {path.readlink()}: nothing is published through links",
                    hint="put the folder itself there; to have it on another disk, mount that there (mount --bind)",
                )


def refuse_twin(repo: Repository, model: str) -> None:
    """Refuse a new model whose name differs from that of another only in case, or whose folder is not its own.

    If a server's disk ignores case, both would be one folder with one sequence of numbers.

    Raises:
        BadName: There is a model or a folder with such a name; or its folder is another model's, or has one in it.
    """
    layout = repo.layout
    ours = {*model_names(repo)}
    if model in ours:
        return
    with storage_errors("read", layout.models):
        names = {*ours, *names_in(layout.models)}
    twins = sorted(one for one in names - {model} if one.casefold() == model.casefold())
    if model not in names and twins:
        raise BadName(
            f"the new model {model} would differ from {twins[0]} only in case: on some disks they are one folder",
            hint=f"promote to {twins[0]}, or choose another name",
        )
    for pair in overlaps({name: layout.path(name) for name in {*ours, *layout.paths, model}}):
        if model in pair:
            other = pair[1] if pair[0] == model else pair[0]
            raise BadName(
                f"the folder of the new model {model} would be {layout.model(model)}; that is the folder of {other} "
                f"({layout.model(other)}), or has it in it",
                hint=f"promote to {other}, or choose another name",
            )


def _facts(path: Path) -> os.stat_result | None:
    with storage_errors("read", path):
        try:
            return path.lstat()
        except FileNotFoundError:
            return None
