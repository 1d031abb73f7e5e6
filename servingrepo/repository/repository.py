"""A model repository: opened, looked into, and locked for writing.

`Repository` is a value: paths, where servers see them, and the disk to write through. Reading needs no lock
and no write access; every reader sees the state before or after a commit point. Writers use `writing`.
"""

from __future__ import annotations

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
        """What models.config is called in messages; `servingrepo.repository.config` reads and writes it."""
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
    """Make a directory a repository; one that is a repository already stays as it is.

    It has a models.config that a server can start with; one that is there already is left alone.

    Returns:
        The repository, and whether it was made now.

    Raises:
        NoPermission: The directory cannot be written.
    """
    from servingrepo.storage.lock import was_left

    layout = Layout(root.absolute())
    existing = load(layout.format, Format)
    if existing is not None:
        repo = _opened(layout, existing, disk=disk, lock_wait=lock_wait)
        if was_left(layout.lock):  # by an init that died at its very end, perhaps
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
        if existing is not None:  # somebody else was faster
            return _opened(layout, existing, disk=disk, lock_wait=lock_wait), False
        for place in (layout.root, layout.own):  # an init that was killed may have left some
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
        # Last: only a complete repository has the marker.
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
            hint=f"it is in one: give --root {above}"
            if above is not None
            else "--root or SERVINGREPO_ROOT names another; "
            f"servingrepo --root {layout.root} init makes it one",
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
    """Tell whether a file is there; what may not be looked at is none."""
    try:
        return path.is_file()
    except PermissionError:
        return False


@contextmanager
def locked(repo: Repository) -> Iterator[None]:
    """Hold the repository's lock: to reserve a number, and from C1 to C2; never during copy or smoke.

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
    """Make our folders again that may be empty, for a writer: backups and copies often leave such ones out.

    Those of models (staging, trash, records) are made where they are needed. `models` is never empty, so one that
    is missing is a mount that is away, or a loss: it is not made.

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
    """Refuse a repository without a folder of records, unless it never had any.

    Then history knows of no model but those whose entries `config write` took over from hand: they have no record.
    """
    if any(event.action != "config-write" for event in history.read(repo.layout.history)):
        raise RepositoryDamaged(
            f"{repo.layout.states}, with the records of all models, is missing, and history knows of some",
            hint="restore it from a backup, or mount what is away; the models themselves are untouched",
        )


def make_durable(repo: Repository) -> None:
    """Make durable what a command did that was killed while it held the lock; the caller holds it now.

    Whoever is killed between a rename and the fsync that follows leaves what everybody sees and a power loss
    still takes away. Nobody may build on that: recovery would finish the history of a version that is gone later.
    """
    layout = repo.layout
    places = [layout.root, layout.models, layout.own, layout.journal, layout.states]
    for shelf in (layout.models, layout.states):
        with storage_errors("read", shelf):
            places += sorted(one for one in shelf.iterdir() if one.is_dir())
    places += [trash for one in places if (trash := one / TRASH_NAME).is_dir()]
    repo.disk.step("make-durable.before", layout.root)
    for place in places:
        with storage_errors("sync", place):
            repo.disk.sync_directory(place)
    repo.disk.sync_file(layout.history)


def new_txid(repo: Repository) -> str:
    """Return a name for one command's work: sorts by time, never meets another."""
    import secrets

    return f"{repo.clock():%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def me() -> Owner:
    """Return who runs this process, for records."""
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
        NoSuchVersion: The model is not ours; the message lists the ones there are.
    """
    state = load_state(repo, model)
    if state is None:
        foreign = sorted(names_on_disk(repo, model) or {}) if is_model_name(model) else []
        if foreign:
            raise NoSuchVersion(
                f"servingrepo published no version of {model}: {', '.join(map(str, foreign[:20]))} on disk have "
                "no record, so nothing is known of them",
                hint=f"promote one: servingrepo promote {repo.layout.version(model, foreign[-1])} --model {model}",
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
    """Remember that a number was used: something was staged under it. The caller holds the lock."""
    state = load_state(repo, model) or ModelState(name=model)
    if state.highest < version:
        save_state(repo, msgspec.structs.replace(state, highest=version))


def load_record(repo: Repository, model: str, version: int) -> VersionRecord | None:
    """Return the record of a version; None for a foreign or missing one."""
    path = repo.layout.record(model, version)
    record = load(path, VersionRecord)
    if record is not None and (record.model, record.version) != (model, version):
        raise damaged(path, f"it is about {record.model!r}@{record.version}")
    return record


def load_head(repo: Repository, model: str, version: int) -> RecordHead | None:
    """Return the start of a version's record, which is quick to read; None for a foreign or missing one."""
    return load(repo.layout.record(model, version), RecordHead)


def record_numbers(repo: Repository, model: str) -> tuple[int, ...]:
    """Return the numbers of all records of a model, ascending, without reading them."""
    folder = repo.layout.records(model)
    with storage_errors("read", folder):
        try:
            names = [path.name for path in folder.iterdir()]
        except FileNotFoundError:
            return ()
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return tuple(sorted(int(stem) for stem in stems if stem.isdecimal()))


def names_on_disk(repo: Repository, model: str) -> Mapping[int, tuple[str, ...]] | None:
    """Return what TF Serving takes for versions below a model's base path; None without a base path."""
    base = repo.layout.model(model)
    with storage_errors("read", base):
        try:
            return names_by_version(path.name for path in base.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return None


def published_versions(repo: Repository, model: str) -> tuple[int, ...]:
    """Return the numbers of our versions that are on disk, ascending: a record and a directory."""
    return versions_on_disk(repo, model).published


class OnDisk(msgspec.Struct, frozen=True):
    """The numbers below a model's base path: of ours, and of those that have no record, with their names."""

    published: tuple[int, ...]
    foreign: Mapping[int, tuple[str, ...]]


def versions_on_disk(repo: Repository, model: str) -> OnDisk:
    """Tell our versions on disk from foreign ones, in one look that no writer can come into the middle of.

    A record is written before its directory appears and outlives it, so directories are listed first. What then
    looks foreign is looked at again: it may have been taken away in between.
    """
    names = names_on_disk(repo, model) or {}
    recorded = record_numbers(repo, model)
    published = tuple(
        number
        for number in recorded
        if str(number) in names.get(number, ()) and repo.layout.version(model, number).is_dir()
    )
    foreign = {number: names[number] for number in names.keys() - set(published)}
    if foreign:
        now = names_on_disk(repo, model) or {}
        foreign = {number: foreign[number] for number in sorted(foreign.keys() & now.keys())}
    return OnDisk(published, foreign)


def need_version(repo: Repository, model: str, version: int) -> VersionRecord:
    """Return the record of a version that is ours and on disk.

    Raises:
        NoSuchVersion: It is not there, or it is foreign.
    """
    record = load_record(repo, model, version)
    directory = repo.layout.version(model, version)
    if record is not None and directory.is_dir():
        return record
    versions = published_versions(repo, model)
    listed = ", ".join(map(str, versions[-20:])) or "none"
    if record is None and directory.exists():
        raise NoSuchVersion(
            f"{directory} was not published by servingrepo: it has no record, so nothing is known of it",
            hint=f"promote it: servingrepo promote {directory} --model {model}; versions of {model}: {listed}",
        )
    if record is not None and find_trashed(repo.layout, model, version) is not None:
        raise NoSuchVersion(
            f"{model}@{version} is in the trash",
            hint=f"servingrepo restore {model}@{version} brings it back; versions on disk: {listed}",
        )
    raise NoSuchVersion(f"there is no version {version} of {model}", hint=f"versions: {listed}")


def find_version(repo: Repository, model: str, version: int) -> tuple[VersionRecord, Path]:
    """Return the record of a version that is ours, and where it lies: under its number, or in the trash.

    Raises:
        NoSuchVersion: It is in neither place, or it is foreign.
    """
    trashed = find_trashed(repo.layout, model, version)
    directory = repo.layout.version(model, version)
    if trashed is not None and not directory.exists():
        record = load_record(repo, model, version)
        if record is not None:
            return record, Path(trashed.path)
    return need_version(repo, model, version), directory
