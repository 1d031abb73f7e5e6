"""Create, open and lock a model repository, and read its records and directories.

`Repository` is a value: paths, where servers see them, and the disk to write through. Reading needs no lock
and no write access; every reader sees the state before or after a commit point. Writers use `writing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import (
    BadName,
    NoRepository,
    NoSuchVersion,
    RepositoryChanged,
    RepositoryDamaged,
)
from servingrepo.modelconfig.names import (
    MAX_VERSION,
    check_name,
    check_path,
    is_model_name,
    names_by_version,
    why_not_a_path,
)
from servingrepo.repository import history
from servingrepo.repository.layout import TRASH_NAME, Layout, is_state_name, overlaps
from servingrepo.repository.records import (
    PLACES_SCHEMA,
    Format,
    ModelState,
    RecordHead,
    VersionRecord,
    damaged,
    encode,
    encode_marker,
    load,
)
from servingrepo.repository.trash import find_trashed
from servingrepo.storage.disk import Disk, storage_errors
from servingrepo.storage.manifest import Differences, compare_sizes
from servingrepo.storage.reading import folders_in, is_folder, names_in

if TYPE_CHECKING:
    from servingrepo.storage.lock import Owner

DEFAULT_SERVER_ROOT = "/models"


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """One opened repository. `server_roots_before` is as in `Format`."""

    layout: Layout
    server_root: str
    server_roots_before: tuple[str, ...] = ()
    disk: Disk = Disk()
    lock_wait: float = 30.0
    clock: Callable[[], datetime] = utc_now

    @property
    def root(self) -> Path:
        """The directory that `--root` names."""
        return self.layout.root

    @property
    def config_name(self) -> str:
        """The path of models.config, for messages; `servingrepo.repository.config` reads and writes the file."""
        return str(self.layout.config)

    def now(self) -> str:
        """Return the time for records: ISO 8601 in UTC, to the millisecond."""
        return self.clock().isoformat(timespec="milliseconds")

    def base_path(self, model: str) -> str:
        """Return a model's base path as the servers see it."""
        return f"{self.server_root}/{self.layout.path(model)}"


def open_repository(root: Path, *, disk: Disk | None = None, lock_wait: float = 30.0) -> Repository:
    """Open the repository at a root.

    Raises:
        NoRepository: There is none.
        NewerFormat: A newer servingrepo wrote it.
    """
    layout = Layout(root.absolute())
    repo = Repository(layout=layout, server_root="", disk=disk or Disk(), lock_wait=lock_wait)
    marker = load_marker(repo)
    if marker is None:
        what = "is not a servingrepo repository" if root.is_dir() else "does not exist"
        above = next((one for one in layout.root.parents if _is_file(Layout(one).format)), None)
        raise NoRepository(
            f"{layout.root} {what}",
            hint=f"the repository {above} is above it: give --root {above}"
            if above is not None
            else "name another directory with --root or SERVINGREPO_ROOT; "
            f"servingrepo --root {layout.root} init makes this one a repository",
        )
    return as_marked(repo, marker)


def load_marker(repo: Repository) -> Format | None:
    """Return the marker of the repository; None if there is none.

    Raises:
        NewerFormat: A newer servingrepo wrote it.
        RepositoryDamaged: It is no marker, or a model cannot lie where it says.
    """
    path = repo.layout.format
    marker = load(path, Format)
    if marker is None or not (marker.models or marker.paths):
        return marker
    if marker.schema < PLACES_SCHEMA:
        raise damaged(path, f"it has format {marker.schema}, and says where models lie")
    if marker.models and not Path(marker.models).is_absolute():
        raise damaged(path, f"the models directory {marker.models!r} is no absolute path")
    for name, at in marker.paths.items():
        why = why_not_a_path(at)
        if why is not None or not is_model_name(name):
            raise damaged(path, f"the model {name!r} has the path {at!r}")
    for inner, outer in overlaps(marker.paths):
        raise damaged(path, f"the path of {inner} is that of {outer}, or lies in it")
    return marker


def as_marked(repo: Repository, marker: Format) -> Repository:
    """Return the repository as its marker says: where models lie, and where servers see them."""
    models_at = Path(marker.models) if marker.models else None
    return msgspec.structs.replace(
        repo,
        layout=Layout(repo.root, models_at=models_at, paths=marker.paths),
        server_root=marker.server_root,
        server_roots_before=marker.server_roots_before,
    )


def reread(repo: Repository) -> Repository:
    """Return the repository as its marker says now: another command may have changed where models lie."""
    marker = load_marker(repo)
    return repo if marker is None else as_marked(repo, marker)


def save_marker(repo: Repository, marker: Format) -> None:
    """Write the marker, durably. The caller holds the lock."""
    repo.disk.replace_file(repo.layout.format, encode_marker(marker), step="format")


def with_paths(repo: Repository, paths: Mapping[str, str]) -> Repository:
    """Return the repository in which these models have these paths. Nothing is written; `save_paths` does that.

    Raises:
        BadName: A name or path is not allowed; or a path is that of another model, or lies in it, or around it.
    """
    for name, path in paths.items():
        check_name(name)
        check_path(path)
    chosen = {**repo.layout.paths, **paths}
    every = {name: chosen.get(name, name) for name in {*model_names(repo), *chosen}}
    for inner, outer in overlaps(every):
        if inner in paths or outer in paths:
            raise BadName(
                f"{every[inner]}, the path of {inner}, is {every[outer]}, the path of {outer}, or lies in it",
                hint="the folders of two models must lie beside each other: move one of them",
            )
    kept = {name: chosen[name] for name in sorted(chosen) if chosen[name] != name}
    return msgspec.structs.replace(repo, layout=msgspec.structs.replace(repo.layout, paths=kept))


def save_paths(repo: Repository) -> None:
    """Write the paths of a repository that `with_paths` returned into its marker: one durable write for all of them.

    The caller holds the lock. From then on this repository's value is the one to go on with: `locked` refuses others.
    """
    marker = load_marker(repo)
    if marker is None:
        raise damaged(repo.layout.format, "it is gone")
    save_marker(repo, msgspec.structs.replace(marker, paths=dict(repo.layout.paths)))


def forget_paths(repo: Repository, paths: Mapping[str, str]) -> None:
    """Take paths that `save_paths` wrote out of the marker, whose bytes are those from before then.

    It may be repeated. The caller holds the lock, and the models have no state.
    """
    marker = load_marker(repo)
    if marker is not None:
        kept = {name: at for name, at in marker.paths.items() if paths.get(name) != at}
        if kept != marker.paths:
            save_marker(repo, msgspec.structs.replace(marker, paths=kept))


def _is_file(path: Path) -> bool:
    """Tell whether a path is a file; False also if we may not look."""
    try:
        return path.is_file()
    except PermissionError:
        return False


@contextmanager
def locked(repo: Repository, *, is_new: bool = False) -> Iterator[bool]:
    """Hold the repository's lock: to reserve a number, and from C1 to C2, never during a copy or a smoke test.

    The marker is read anew. For a repository that `is_new` the caller does that. The block gets whether the last
    holder died with the lock.

    Raises:
        Locked: Another process held it for all of `lock_wait` seconds.
        RepositoryChanged: Another command changed where models lie since this repository was opened.
    """
    from servingrepo.storage.lock import command_line, hold_lock, this_process

    owner = this_process(command_line())
    with hold_lock(
        repo.layout.lock, owner, wait=repo.lock_wait, what=f"the repository {repo.root}"
    ) as lock:
        now = repo if is_new else reread(repo)
        make_whole(now)
        if lock.was_left:
            make_durable(now)
        refuse_moved(repo, now)
        yield lock.was_left


def refuse_moved(repo: Repository, now: Repository) -> None:
    """Refuse to go on with a repository whose models lie elsewhere now: its paths are those from before.

    Raises:
        RepositoryChanged: Another command, or the recovery of one, changed where models lie since it was opened.
    """
    if (now.layout, now.server_root) != (repo.layout, repo.server_root):
        raise RepositoryChanged(
            f"another command changed where the models of {repo.root} lie, or where servers see them, since "
            "this one began; it changed nothing more",
            hint="run this one again",
        )


def make_whole(repo: Repository) -> None:
    """Make our folders that may be empty, if they are missing: backups and copies often leave out empty folders.

    The folders of a model (staging, trash, records) are made where they are needed. `models` is never empty: if it is
    missing, a mount is away or data is lost, so we do not make it.

    Raises:
        RepositoryDamaged: The folder of records is missing, and it was not empty.
    """
    layout = repo.layout
    if not layout.states.is_dir():
        _refuse_lost_records(repo)
    for folder in (layout.journal, layout.states):
        if not folder.is_dir():
            repo.disk.make_directory(folder)


def _refuse_lost_records(repo: Repository) -> None:
    """Refuse a repository without a folder of records, unless it never had a record.

    Then history has only events of `config write`, about hand-written entries: these models have no record.
    """
    if any(event.action != "config-write" for event in history.read(repo.layout.history)):
        raise RepositoryDamaged(
            f"{repo.layout.states}, with the records of all models, is missing, and history knows of some",
            hint="restore it from a backup, or mount its file system; the models themselves are untouched",
        )


def make_durable(repo: Repository) -> None:
    """Make durable what a command did before it was killed under the lock; the caller holds the lock now.

    If a command is killed between a rename and its fsync, everybody sees the new name, and a power loss can still
    take it away. Recovery must not build on it: history would have a version that is gone later.
    """
    layout = repo.layout
    places = [layout.root, layout.models, layout.own, layout.journal, layout.states]
    with storage_errors("read", layout.states):
        places += sorted(one for one in layout.states.iterdir() if one.is_dir())
    places += [one for one in model_folders(repo) if one.is_dir() and is_open(one)]
    places += [layout.adoptions] if layout.adoptions.is_dir() else []
    places += [trash for one in places if (trash := one / TRASH_NAME).is_dir()]
    repo.disk.step("make-durable.before", layout.root)
    for place in places:
        with storage_errors("sync", place):
            repo.disk.sync_directory(place)
    repo.disk.sync_file(layout.history)


def is_open(folder: Path) -> bool:
    """Tell whether this process may look into a folder. Others may have folders of their own beside our models."""
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=True)


def new_txid(repo: Repository) -> str:
    """Return a unique name for one command's work; these names sort by time."""
    return f"{repo.clock():%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}"


def me() -> Owner:
    """Return this process as an owner, for records."""
    from servingrepo.storage.lock import command_line, this_process

    return this_process(command_line())


def model_names(repo: Repository) -> tuple[str, ...]:
    """Return the names of our models, sorted: those that have a state file.

    Raises:
        RepositoryDamaged: The folder of records is missing, and it was not empty.
    """
    with storage_errors("read", repo.layout.states):
        try:
            names = names_in(repo.layout.states)
        except FileNotFoundError:
            names = []
            _refuse_lost_records(repo)
    return tuple(sorted(one.removesuffix(".json") for one in names if is_state_name(one)))


def model_folders(repo: Repository) -> dict[Path, str | None]:
    """Return the folders of the models directory, and those on the way to a model with a path, each with its model.

    It is None for a folder that has no model: that of a model of its name is another one, or it only leads to one.

    Raises:
        StorageFailed: The models directory cannot be read.
    """
    layout = repo.layout
    with storage_errors("read", layout.models):
        found = folders_in(layout.models)
    folders: dict[Path, str | None] = {
        layout.models / name: None if name in layout.paths else name for name in found
    }
    for name in layout.paths:
        for folder in layout.folders(name):
            folders.setdefault(folder, None)
    return folders | {layout.model(name): name for name in layout.paths}


def link_on_way(repo: Repository, place: Path) -> Path | None:
    """Return a place in the models directory if it is a link, or else the link behind which it lies; None without."""
    models = repo.layout.models
    way = takewhile(lambda one: one != models, chain([place], place.parents))
    return next((one for one in way if one.is_symlink()), None)


def is_behind_link(repo: Repository, place: Path) -> bool:
    """Tell whether a place in the models directory is a link, or lies behind one."""
    return link_on_way(repo, place) is not None


def load_state(repo: Repository, model: str) -> ModelState | None:
    """Return a model's state; None if the model is not ours."""
    path = repo.layout.state(model)
    state = load(path, ModelState)
    if state is not None and state.name != model:
        raise damaged(path, f"it is about {state.name!r}")
    return state


def need_state(repo: Repository, model: str) -> ModelState:
    """Return a model's state.

    Raises:
        NoSuchVersion: The model is not ours; the message lists our models.
    """
    state = load_state(repo, model)
    if state is None:
        unmanaged = sorted(names_on_disk(repo, model) or {}) if is_model_name(model) else []
        if unmanaged:
            raise NoSuchVersion(
                f"servingrepo published no version of {model}; versions on disk without a record: "
                f"{', '.join(map(str, unmanaged[:20]))}",
                hint=f"servingrepo adopt {model} takes them under management where they lie",
            )
        known = model_names(repo)
        raise NoSuchVersion(
            f"there is no model {model} in {repo.root}",
            hint=f"models here: {', '.join(known[:20])}; servingrepo list shows unmanaged ones, too"
            if known
            else "servingrepo promote RUN --model NAME publishes one; servingrepo adopt --all takes what is there",
        )
    return state


def save_state(repo: Repository, state: ModelState) -> None:
    """Write a model's state; the caller holds the lock."""
    repo.disk.replace_file(repo.layout.state(state.name), encode(state), step="state")


def burn_number(repo: Repository, model: str, version: int) -> None:
    """Record that a number is used up, because something was staged under it. The caller holds the lock."""
    state = load_state(repo, model) or ModelState(name=model)
    if state.highest < version:
        save_state(repo, msgspec.structs.replace(state, highest=version))


def load_record(repo: Repository, model: str, version: int) -> VersionRecord | None:
    """Return the record of a version; None if the version is unmanaged or missing."""
    path = repo.layout.record(model, version)
    record = load(path, VersionRecord)
    if record is not None and (record.model, record.version) != (model, version):
        raise damaged(path, f"it is about {record.model!r}@{record.version}")
    return record


def load_head(repo: Repository, model: str, version: int) -> RecordHead | None:
    """Return the fields of a version's record that are quick to read; None if it is unmanaged or missing."""
    return load(repo.layout.record(model, version), RecordHead)


def record_numbers(repo: Repository, model: str) -> tuple[int, ...]:
    """Return the numbers of all records of a model, ascending. Only names are read."""
    folder = repo.layout.records(model)
    with storage_errors("read", folder):
        try:
            names = names_in(folder)
        except FileNotFoundError:
            return ()
    stems = [name[: -len(".json")] for name in names if name.endswith(".json")]
    return tuple(sorted([int(stem) for stem in stems if stem.isdecimal()]))


def names_on_disk(repo: Repository, model: str) -> Mapping[int, tuple[str, ...]] | None:
    """Return the names below a model's base path that TF Serving takes for versions; None without a base path."""
    return version_names(repo.layout.model(model))


def version_names(folder: Path) -> Mapping[int, tuple[str, ...]] | None:
    """Return the names in a folder that TF Serving takes for versions; None where there is no such folder."""
    with storage_errors("read", folder):
        try:
            return names_by_version(names_in(folder))
        except (FileNotFoundError, NotADirectoryError):
            return None


def published_versions(repo: Repository, model: str) -> tuple[int, ...]:
    """Return the numbers of our versions on disk, ascending: those with a record and a directory."""
    return versions_on_disk(repo, model).published


class OnDisk(msgspec.Struct, frozen=True):
    """The version numbers below a model's base path: ours, and those without a record with their names."""

    published: tuple[int, ...]
    unmanaged: Mapping[int, tuple[str, ...]]


def versions_on_disk(repo: Repository, model: str) -> OnDisk:
    """Tell our versions on disk from unmanaged ones, also while a writer adds or removes versions.

    A record is written before its directory appears, and outlives it. So directories are listed first. Numbers
    without a record are listed once more: their directory and record may have been removed in between.
    """
    folder = repo.layout.model(model)
    children: dict[str, os.DirEntry[str]] = {}
    with storage_errors("read", folder):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
            children = {one.name: one for one in found}
        published = tuple(
            number
            for number in record_numbers(repo, model)
            if (child := children.get(str(number))) is not None
            and is_folder(child)
            and number <= MAX_VERSION
        )
    # Usually no name is left that could be a version.
    names = names_by_version(children.keys() - set(map(str, published)))
    unmanaged = {number: names[number] for number in names.keys() - set(published)}
    if unmanaged:
        now = names_on_disk(repo, model) or {}
        unmanaged = {number: unmanaged[number] for number in sorted(unmanaged.keys() & now.keys())}
    return OnDisk(published, unmanaged)


def need_version(repo: Repository, model: str, version: int) -> VersionRecord:
    """Return the record of a version that is ours and on disk.

    Raises:
        NoSuchVersion: It does not exist, or is unmanaged.
    """
    record = load_record(repo, model, version)
    directory = repo.layout.version(model, version)
    if record is not None and directory.is_dir():
        return record
    versions = published_versions(repo, model)
    listed = ", ".join(map(str, versions[-20:])) or "none"
    if record is None and directory.exists():
        raise NoSuchVersion(
            f"servingrepo did not publish {directory}: it has no record",
            hint=f"servingrepo adopt {model} takes it under management where it lies; versions of {model}: {listed}",
        )
    if record is not None and find_trashed(repo.layout, model, version) is not None:
        raise NoSuchVersion(
            f"{model}@{version} is in the trash",
            hint=f"servingrepo restore {model}@{version} brings it back; versions on disk: {listed}",
        )
    raise NoSuchVersion(f"there is no version {version} of {model}", hint=f"versions: {listed}")


def find_version(repo: Repository, model: str, version: int) -> tuple[VersionRecord, Path]:
    """Return the record of a version of ours, and its place: under its number, or in the trash.

    Raises:
        NoSuchVersion: It is in neither place, or is unmanaged.
    """
    trashed = find_trashed(repo.layout, model, version)
    directory = repo.layout.version(model, version)
    if trashed is not None and not directory.exists():
        record = load_record(repo, model, version)
        if record is not None:
            return record, Path(trashed.path)
    return need_version(repo, model, version), directory


def quick_differences(repo: Repository, record: VersionRecord) -> Differences:
    """Compare names and sizes only, because a rollback has no time for more. Bytes are not checked."""
    return compare_sizes(record.manifest, repo.layout.version(record.model, record.version))
