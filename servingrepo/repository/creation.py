"""Create a repository: where its models lie, and where servers see them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import servingrepo
from servingrepo.errors import (
    ConfigInvalid,
    NoPermission,
    RepositoryDamaged,
    ServingRepoError,
    UsageError,
)
from servingrepo.modelconfig import EMPTY, Stamp, models, read_stamp, render, same_base_path
from servingrepo.modelconfig.names import why_not_a_path
from servingrepo.repository.config import last_text, read_config
from servingrepo.repository.config_write import checked_server_root
from servingrepo.repository.layout import Layout
from servingrepo.repository.records import Format
from servingrepo.repository.repository import (
    DEFAULT_SERVER_ROOT,
    Repository,
    as_marked,
    load_marker,
    locked,
    open_repository,
    save_marker,
    utc_now,
    version_names,
)
from servingrepo.storage.disk import storage_errors
from servingrepo.texts import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.storage.disk import Disk


def initialize(
    root: Path,
    *,
    server_root: str | None,
    models_at: Path | None,
    disk: Disk,
    lock_wait: float = 30.0,
) -> tuple[Repository, bool]:
    """Make a directory a repository. A directory that is a repository already stays as it is.

    The new repository has a models.config with which a server can start. A file that is there already stays.

    Args:
        root: The directory.
        server_root: Where servers see the models directory; None: what a models.config that is there says.
        models_at: The models directory, if it is not `<root>/models`.
        disk: The disk to write through.
        lock_wait: Seconds to wait for the lock of another command.

    Returns:
        The repository, and whether it is new.

    Raises:
        ConfigInvalid: The server root is not an absolute path.
        UsageError: The models directory cannot be that of a new repository.
        NoPermission: The directory cannot be written.
    """
    from servingrepo.storage.lock import was_left

    seen_at = DEFAULT_SERVER_ROOT if server_root is None else checked_server_root(server_root)
    layout = Layout(root.absolute())
    repo = Repository(layout=layout, server_root=seen_at, disk=disk, lock_wait=lock_wait)
    existing = load_marker(repo)
    if existing is not None:
        repo = as_marked(repo, existing)
        if was_left(layout.lock):  # perhaps by an init that died after its last step
            with locked(repo):
                pass
        return repo, False
    if models_at is not None:
        layout = Layout(layout.root, models_at=checked_models_directory(repo, models_at))
        repo = msgspec.structs.replace(repo, layout=layout)
    shelves = () if layout.models_at is not None else (layout.models,)
    for directory in (*shelves, layout.own, layout.journal, layout.states):
        disk.make_directory(directory)
    with locked(repo, is_new=True):
        existing = load_marker(repo)
        if existing is not None:  # another process was faster
            return as_marked(repo, existing), False
        for place in (layout.root, layout.own):  # a killed init may have left some
            disk.remove_unfinished(place)
        if server_root is None:
            guessed = guessed_server_root(repo)
            seen_at = seen_at if guessed is None else guessed
            repo = msgspec.structs.replace(repo, server_root=seen_at)
        if not layout.config.exists():
            if layout.config.is_symlink():
                raise RepositoryDamaged(
                    f"{layout.config} is a link to {layout.config.readlink()}, where nothing is",
                    hint="remove it, or put the file itself there",
                )
            empty = render(EMPTY).encode()
            disk.replace_file(layout.last_config, empty, step="c2-copy")
            disk.replace_file(layout.config, empty, step="c2")
        marker = Format(
            server_root=repo.server_root,
            created=utc_now().isoformat(timespec="seconds"),
            created_by=f"servingrepo {servingrepo.__version__}",
            models=str(layout.models_at or ""),
        )
        # The marker comes last, so that only a complete repository has it.
        save_marker(repo, marker)
    return repo, True


def guessed_server_root(repo: Repository) -> str | None:
    """Return where servers see the models directory by the base paths in its models.config; None if they do not say.

    A base path fits if its end is the path of a folder with versions. Its beginning is the server root then. The one
    that fits most entries is taken, and of two that fit as many none.
    """
    try:
        entries = models(read_config(repo).config)
    except ConfigInvalid:
        return None
    fits: Counter[str] = Counter()
    for one in entries:
        before, *parts = same_base_path(one.base_path).split("/")
        for start in range(len(parts) if not before else 0):
            path = "/".join(parts[start:])
            if why_not_a_path(path) is None and version_names(repo.layout.models / path):
                fits["".join(f"/{part}" for part in parts[:start])] += 1
    best = fits.most_common(2)
    if not best or (len(best) > 1 and best[0][1] == best[1][1]):
        return None
    return best[0][0]


def checked_models_directory(repo: Repository, given: Path) -> Path | None:
    """Return the absolute path of a models directory for a new repository; None if it is `<root>/models`.

    Raises:
        UsageError: It is no directory or a link, or another repository is in it or around it.
        NoPermission: It cannot be written.
    """
    path = Path(os.path.normpath(as_text(str(given.absolute()), "models directory")))
    layout = repo.layout
    if path == layout.models:
        return None
    with storage_errors("read", path):
        why = next(_objections(repo, path), "")
        writable = os.access(path, os.W_OK | os.X_OK, effective_ids=True)
    if why:
        raise UsageError(
            f"{path} cannot be the models directory of {repo.root}: {why}",
            hint="give the directory that has the folders of models in it, and that servers mount",
        )
    if not writable:
        raise NoPermission(
            f"cannot write to the models directory {path}",
            hint="its file system may be mounted read-only, or it belongs to another user: servingrepo writes "
            "models.config and versions there",
        )
    return path


def _objections(repo: Repository, path: Path) -> Iterator[str]:
    """Yield why a directory cannot be the models directory of a new repository; only the first one counts."""
    own = repo.layout.own.name
    if path.is_symlink():
        yield f"it is a link to {path.readlink()}; give the directory itself"
    if not path.is_dir():
        yield "it is no directory"
        return
    if own in path.parts:
        yield f"it is, or lies in, the {own} of a repository"
    inner = (one for one in (path, *sorted(path.iterdir())) if (one / own).exists())
    root = repo.root if repo.root.is_relative_to(path) else next(inner, None)
    if root is not None:
        yield f"the repository {root}, with its {own}, would lie in it"
    yield from _other_owners(repo, path)


def _other_owners(repo: Repository, path: Path) -> Iterator[str]:
    """Yield the repositories that have a models directory already, as far as they can be seen."""
    for above in path.parents:
        if above == repo.root or not Layout(above).format.exists():
            continue
        try:
            theirs = path.is_relative_to(open_repository(above).layout.models)
        except ServingRepoError as error:
            yield f"it lies in a repository that cannot be read: {error.message}"
            continue
        if theirs:
            yield f"it lies in the models directory of the repository {above}"
    config = Layout(repo.root, models_at=path).config
    if config.is_file():
        text = config.read_text(encoding="utf-8", errors="replace")
        if read_stamp(text) is not Stamp.FOREIGN and last_text(repo) != text:
            yield (
                f"servingrepo wrote its {config.name} for another repository; if that one is gone for good, remove "
                "the first line of the file"
            )
