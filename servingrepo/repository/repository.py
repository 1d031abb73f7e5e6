"""Create, open and lock a model repository, and read its records and directories.

`Repository` is a value: paths, where servers see them, and the disk to write through. Reading needs no lock
and no write access; every reader sees the state before or after a commit point. Writers use `writing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import servingrepo
from servingrepo.errors import NoRepository, NoSuchVersion, RepositoryDamaged
from servingrepo.modelconfig import EMPTY, render
from servingrepo.modelconfig.names import is_model_name, names_by_version
from servingrepo.repository import history
from servingrepo.repository.layout import TRASH_NAME, Layout
from servingrepo.repository.records import (
    Format,
    ModelState,
    RecordHead,
    VersionRecord,
    damaged,
    encode,
    load,
)
from servingrepo.repository.trash import find_trashed
from servingrepo.storage.disk import Disk, storage_errors

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
        return f"{self.server_root}/{model}"


def initialize(
    root: Path, *, server_root: str, disk: Disk, lock_wait: float = 30.0
) -> tuple[Repository, bool]:
    """Make a directory a repository. A directory that is a repository already stays as it is.

    The new repository has a models.config with which a server can start. A file that is there already stays.

    Returns:
        The repository, and whether it is new.

    Raises:
        NoPermission: The directory cannot be written.
    """
    from servingrepo.storage.lock import was_left

    layout = Layout(root.absolute())
    existing = load(layout.format, Format)
    if existing is not None:
        repo = _opened(layout, existing, disk=disk, lock_wait=lock_wait)
        if was_left(layout.lock):  # perhaps by an init that died after its last step
            with locked(repo):
                pass
        return repo, False
    for directory in (layout.models, layout.own, layout.journal, layout.states):
        disk.make_directory(directory)
    repo = Repository(layout=layout, server_root=server_root, disk=disk, lock_wait=lock_wait)
    marker = Format(
        server_root=server_root,
        created=utc_now().isoformat(timespec="seconds"),
        created_by=f"servingrepo {servingrepo.__version__}",
    )
    with locked(repo):
        existing = load(layout.format, Format)
        if existing is not None:  # another process was faster
            return _opened(layout, existing, disk=disk, lock_wait=lock_wait), False
        for place in (layout.root, layout.own):  # a killed init may have left some
            disk.remove_unfinished(place)
        if not layout.config.exists():
            if layout.config.is_symlink():
                raise RepositoryDamaged(
                    f"{layout.config} is a link to {layout.config.readlink()}, where nothing is",
                    hint="remove it, or put the file itself there",
                )
            empty = render(EMPTY).encode()
            disk.replace_file(layout.last_config, empty, step="c2-copy")
            disk.replace_file(layout.config, empty, step="c2")
        # The marker comes last, so that only a complete repository has it.
        disk.replace_file(layout.format, encode(marker), step="format")
    return repo, True


def open_repository(root: Path, *, disk: Disk | None = None, lock_wait: float = 30.0) -> Repository:
    """Open the repository at a root.

    Raises:
        NoRepository: There is none.
        NewerFormat: A newer servingrepo wrote it.
    """
    layout = Layout(root.absolute())
    marker = load(layout.format, Format)
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
    return _opened(layout, marker, disk=disk or Disk(), lock_wait=lock_wait)


def _opened(layout: Layout, marker: Format, *, disk: Disk, lock_wait: float) -> Repository:
    return Repository(
        layout=layout,
        server_root=marker.server_root,
        server_roots_before=marker.server_roots_before,
        disk=disk,
        lock_wait=lock_wait,
    )


def _is_file(path: Path) -> bool:
    """Tell whether a path is a file; False also if we may not look."""
    try:
        return path.is_file()
    except PermissionError:
        return False


@contextmanager
def locked(repo: Repository) -> Iterator[None]:
    """Hold the repository's lock: to reserve a number, and from C1 to C2, never during a copy or a smoke test.

    Raises:
        Locked: Another process held it for all of `lock_wait` seconds.
    """
    from servingrepo.storage.lock import command_line, hold_lock, this_process

    owner = this_process(command_line())
    with hold_lock(
        repo.layout.lock, owner, wait=repo.lock_wait, what=f"the repository {repo.root}"
    ) as lock:
        make_whole(repo)
        if lock.was_left:
            make_durable(repo)
        yield


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
    for shelf in (layout.models, layout.states):
        with storage_errors("read", shelf):
            places += sorted(one for one in shelf.iterdir() if one.is_dir() and is_open(one))
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
    import secrets

    return f"{repo.clock():%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


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
            names = [path.name for path in repo.layout.states.iterdir()]
        except FileNotFoundError:
            names = []
            _refuse_lost_records(repo)
    return tuple(
        sorted(
            name.removesuffix(".json")
            for name in names
            if name.endswith(".json") and not name.startswith(".")
        )
    )


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
            hint=f"models here: {', '.join(known[:20])}"
            if known
            else "servingrepo promote RUN --model NAME publishes one",
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
            names = [path.name for path in folder.iterdir()]
        except FileNotFoundError:
            return ()
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return tuple(sorted(int(stem) for stem in stems if stem.isdecimal()))


def names_on_disk(repo: Repository, model: str) -> Mapping[int, tuple[str, ...]] | None:
    """Return the names below a model's base path that TF Serving takes for versions; None without a base path."""
    base = repo.layout.model(model)
    with storage_errors("read", base):
        try:
            return names_by_version(path.name for path in base.iterdir())
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
    names = names_on_disk(repo, model) or {}
    recorded = record_numbers(repo, model)
    published = tuple(
        number
        for number in recorded
        if str(number) in names.get(number, ()) and repo.layout.version(model, number).is_dir()
    )
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
