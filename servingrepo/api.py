"""The Python API: an opened repository, with a method for each verb of the command line.

A method does the same as the command of that name, returns a value and prints nothing. Every error is a
`servingrepo.errors.ServingRepoError`. References are texts as on the command line: "ranker", "ranker@7",
"ranker@previous". A method made by `verb` takes each option of its verb as a keyword.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.options import Later, standalone, verb
from servingrepo.repository.repository import Repository, model_names, open_repository, reread
from servingrepo.storage.disk import Disk
from servingrepo.texts import as_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta
    from pathlib import Path

    from servingrepo.fleet import options as _live
    from servingrepo.fleet.rules import Hooks, Rules
    from servingrepo.repository import contracts as _contracts
    from servingrepo.repository import listing as _listing
    from servingrepo.repository.pruning import Pruned
    from servingrepo.repository.retention import Keep
    from servingrepo.repository.verification import Round, Verification
    from servingrepo.servers.states import Endpoint
    from servingrepo.storage.progress import Progress
    from servingrepo.verbs import adopt as _adopt
    from servingrepo.verbs import diff as _diff
    from servingrepo.verbs import doctor as _doctor
    from servingrepo.verbs import label as _label
    from servingrepo.verbs import mark as _mark
    from servingrepo.verbs import options as _options
    from servingrepo.verbs import promote as _promote
    from servingrepo.verbs import prune as _prune
    from servingrepo.verbs import reload as _reload
    from servingrepo.verbs import restore as _restore
    from servingrepo.verbs import rollback as _rollback
    from servingrepo.verbs import scan as _scan
    from servingrepo.verbs import serve as _serve
    from servingrepo.verbs import show as _show
    from servingrepo.verbs import smoke as _smoke
    from servingrepo.verbs import status as _status
    from servingrepo.verbs import unserve as _unserve
    from servingrepo.verbs import verify as _verify
    from servingrepo.verbs import warmup as _warmup
    from servingrepo.verbs.change import Switched
    from servingrepo.verbs.status import Status
else:  # a call imports only the verb that it uses
    _live = Later("servingrepo.fleet.options")
    _contracts = Later("servingrepo.repository.contracts")
    _listing = Later("servingrepo.repository.listing")
    _adopt, _diff, _doctor, _label, _mark, _options, _promote, _prune, _reload = (
        Later(f"servingrepo.verbs.{one}")
        for one in "adopt diff doctor label mark options promote prune reload".split()  # noqa: SIM905
    )
    _restore, _rollback, _scan, _serve, _show, _smoke, _status, _unserve, _verify, _warmup = (
        Later(f"servingrepo.verbs.{one}")
        for one in "restore rollback scan serve show smoke status unserve verify warmup".split()  # noqa: SIM905
    )

__all__ = ["OpenRepository", "doctor", "init", "open"]


def init(
    root: str | Path,
    *,
    server_root: str | None = None,
    models: str | Path | None = None,
    disk: Disk | None = None,
    lock_wait: float = 30.0,
) -> tuple[OpenRepository, bool]:
    """Make a directory a repository that a server can start with. Return it, and whether it is new.

    Args:
        root: The directory, which is created if it is missing. A directory that is a repository stays as it is.
        server_root: The models directory as TensorFlow Serving sees it; by default what the base paths in a
            models.config that is there say, else `/models`, as in the container.
        models: The models directory, if it is not `<root>/models`. It must exist.
        disk: The disk to write through: for tests.
        lock_wait: Seconds to wait for the lock of another command.
    """
    from servingrepo.repository.creation import initialize

    repo, made = initialize(
        as_path(root, "root"),
        server_root=server_root,
        models_at=as_path(models, "models directory") if models is not None else None,
        disk=disk or Disk(),
        lock_wait=lock_wait,
    )
    return OpenRepository(repo), made


def open(root: str | Path, *, disk: Disk | None = None, lock_wait: float = 30.0) -> OpenRepository:
    """Open a repository for reading and writing.

    Raises:
        NoRepository: The root is not a repository.
        NewerFormat: A newer servingrepo wrote it.
    """
    return OpenRepository(open_repository(as_path(root, "root"), disk=disk, lock_wait=lock_wait))


doctor = standalone(_doctor.doctor, _options.DoctorOptions)


class OpenRepository:
    """An opened repository. `root` is its directory; `value` is the argument of library functions."""

    def __init__(self, value: Repository) -> None:
        self._opened = value

    @property
    def value(self) -> Repository:
        """The repository now: another command may have changed where models lie since it was opened."""
        return reread(self._opened)

    @property
    def root(self) -> Path:
        """The directory."""
        return self._opened.root

    models = verb(model_names)
    # From a run to a proven version.
    scan = verb(_scan.scan, _options.ScanOptions)
    measure = verb(_scan.measure, _options.MeasureOptions)
    export = verb(_scan.export, _options.ExportOptions)
    promote = verb(_promote.promote, _options.PromoteOptions)
    smoke = verb(_smoke.smoke, _options.SmokeOptions)
    warmup = verb(_warmup.warmup, _options.WarmupOptions)
    size = verb(_verify.size)
    diff = verb(_diff.diff, _options.TrialOptions)
    contract = verb(_contracts.show_contract)
    write_contract = verb(_contracts.write_contract)
    check_contract = verb(_diff.check_subject)

    def verify(
        self,
        *references: str | Path,
        quick: bool = False,
        deep: bool = False,
        progress: Progress | None = None,
    ) -> tuple[Verification, ...]:
        """Compare versions with their records, and exports with their checksums; see `servingrepo verify`."""
        options = _options.VerifyOptions(quick=quick, deep=deep, progress=progress)
        return _verify.verify(self.value, references, options)

    def verify_round(
        self,
        *references: str,
        seconds: float,
        quick: bool = False,
        deep: bool = False,
        progress: Progress | None = None,
    ) -> Round:
        """Verify for some seconds, beginning where the last call stopped; see `servingrepo verify`."""
        options = _options.VerifyOptions(quick=quick, deep=deep, progress=progress)
        return _verify.verify_for(self.value, references, seconds, options)

    serve = verb(_serve.serve, _live.ServeOptions)
    unserve = verb(_unserve.unserve, _live.LiveOptions)
    rollback = verb(_rollback.rollback, _live.RollbackOptions)
    reload = verb(_reload.reload, _live.ReloadOptions)
    label_set = verb(_label.set_label, _live.LabelOptions)

    def label_remove(
        self,
        model: str,
        *labels: str,
        endpoints: Iterable[str | Endpoint] = (),
        wait: float = 60.0,
        rules: Rules | None = None,
        hooks: Hooks | None = None,
        message: str = "",
        dry_run: bool = False,
    ) -> Switched:
        """Remove labels, all at once; see `servingrepo label remove`."""
        options = _live.LiveOptions(
            endpoints=endpoints,
            wait=wait,
            rules=rules,
            hooks=hooks,
            message=message,
            dry_run=dry_run,
        )
        return _label.remove_labels(self.value, model, labels, options)

    def status(
        self,
        model: str | None = None,
        *,
        endpoints: Iterable[str | Endpoint] = (),
        wait: float = 0.0,
    ) -> Status:
        """Return disk, config and endpoints side by side, once they agree or `wait` seconds are over."""
        options = _options.StatusOptions(endpoints=endpoints, wait=wait)
        return _status.status(self.value, model, options)

    def watch(
        self,
        model: str | None = None,
        *,
        endpoints: Iterable[str | Endpoint] = (),
        wait: float | None = None,
    ) -> Iterator[Status]:
        """Yield a status after another until all agree or `wait` seconds are over; without end if it is None."""
        options = _options.StatusOptions(endpoints=endpoints, wait=wait)
        return _status.watch(self.value, model, options)

    # Models, versions, history, marks and trash.
    adopt = verb(_adopt.adopt, _options.AdoptOptions)
    undo_adoption = verb(_adopt.undo, _options.ChangeOptions)
    list = verb(_listing.list_models)
    show = verb(_show.show_model)
    show_version = verb(_show.show_version)
    lineage = verb(_show.lineage)
    history = verb(_show.history)
    life = verb(_show.life)
    hold = verb(_mark.hold, _options.ChangeOptions)
    release_hold = verb(_mark.release_hold, _options.ChangeOptions)
    mark_bad = verb(_mark.mark_bad, _options.MarkOptions)
    restore = verb(_restore.restore, _options.RestoreOptions)
    recover = verb(_restore.recover)

    def prune(
        self,
        *models: str,
        keep: Keep | Mapping[str, Keep] | None = None,
        empty_trash: bool = False,
        older_than: timedelta | None = None,
        adopted: bool = False,
        endpoints: Iterable[str | Endpoint] = (),
        message: str = "",
        dry_run: bool = False,
    ) -> Pruned:
        """Move versions that no rule of a policy keeps to the trash; see `servingrepo prune`."""
        options = _options.PruneOptions(
            keep=keep,
            empty_trash=empty_trash,
            older_than=older_than,
            adopted=adopted,
            endpoints=endpoints,
            message=message,
            dry_run=dry_run,
        )
        return _prune.prune(self.value, models, options)
