"""Who else could have written here: what `status` says of owners, modes and links.

The boundary is the file system's: whoever may write in the repository's folders is trusted, as with Git. So
nothing is refused here for its owner, and what could be somebody else's work is said.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from servingrepo.errors import BadName, RepositoryDamaged
from servingrepo.repository import journal
from servingrepo.repository.layout import STAGING_NAME
from servingrepo.repository.repository import Repository, model_names
from servingrepo.storage.disk import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def notes(repo: Repository) -> Iterator[str]:
    """Yield what a person should know of the repository's files; none of it changes what is served.

    A folder or file that the group may write is not noted: people share repositories that way.
    """
    for _, why in journal.unreadable(repo.layout.journal):
        yield f"{why}; what it had begun may lack its line of history: look at it, then remove it"
    layout = repo.layout
    owner = _facts(layout.own)
    owners = {0, owner.st_uid if owner is not None else os.geteuid()}
    ours = [layout.model(name) for name in model_names(repo)]
    folders = [layout.root, layout.models, layout.own, layout.journal, layout.states, *ours]
    files = [layout.config, layout.format, layout.history, layout.lock]
    for path in (*folders, *files, *(layout.state(base.name) for base in ours)):
        facts = _facts(path)
        if facts is None:
            continue
        if stat.S_ISLNK(facts.st_mode):
            yield f"{path} is a link to {path.readlink()}"
        elif facts.st_mode & stat.S_IWOTH:
            yield f"everybody may write to {path}: chmod o-w {path}"
        if facts.st_uid not in owners:
            yield f"{path} belongs to uid {facts.st_uid}, and the repository to uid {min(owners - {0}, default=0)}"


def refuse_links(repo: Repository, model: str) -> None:
    """Refuse to publish through a link: what lies behind it is on another disk, or somebody else's.

    Servers that mount the models directory do not see where a link leads, and staging behind one could not be
    renamed into place, nor be removed without touching what is there.

    Raises:
        RepositoryDamaged: The model's folder, or its staging folder, is one.
    """
    for path in (repo.layout.model(model), repo.layout.model(model) / STAGING_NAME):
        with storage_errors("read", path):
            if path.is_symlink():
                raise RepositoryDamaged(
                    f"{path} is a link, to {path.readlink()}: nothing is published through links",
                    hint="put the folder itself there; to have it on another disk, mount that there (mount --bind)",
                )


def refuse_twin(repo: Repository, model: str) -> None:
    """Refuse a new model whose name differs from that of another only in case.

    On a server's disk where case does not count they would be one folder, with one sequence of numbers.

    Raises:
        BadName: There is such a model, or a folder of that name.
    """
    with storage_errors("read", repo.layout.models):
        names = {*model_names(repo), *(path.name for path in repo.layout.models.iterdir())}
    twins = sorted(one for one in names - {model} if one.casefold() == model.casefold())
    if model not in names and twins:
        raise BadName(
            f"the new model {model} would differ from {twins[0]} only in case: on some disks they are one folder",
            hint=f"promote to {twins[0]}, or choose another name",
        )


def _facts(path: Path) -> os.stat_result | None:
    with storage_errors("read", path):
        try:
            return path.lstat()
        except FileNotFoundError:
            return None
