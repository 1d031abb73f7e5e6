"""The Python API: one repository, with a method for each verb of the command line.

A method does what the command of the same name does, returns a value and prints nothing; every error is a
`servingrepo.errors.ServingRepoError`. Commands are thin adapters over these methods. References are the
texts that the command line takes: "ranker", "ranker@7", "ranker@previous".
"""

from __future__ import annotations

import builtins
import os
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import msgspec

from servingrepo.errors import BadReference
from servingrepo.modelconfig import check_name
from servingrepo.repository import history
from servingrepo.repository.listing import ModelRow, list_models, show_model, show_version
from servingrepo.repository.references import parse_reference, resolve, selector_of
from servingrepo.repository.repository import (
    DEFAULT_SERVER_ROOT,
    Repository,
    find_version,
    initialize,
    locked,
    model_names,
    need_state,
    open_repository,
    published_versions,
)
from servingrepo.storage.disk import Disk
from servingrepo.storage.progress import silent, unheard
from servingrepo.storage.texts import as_path, as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from servingrepo.repository.changes import Recovered
    from servingrepo.repository.contracts import Pinned
    from servingrepo.repository.history import Event
    from servingrepo.repository.lineage import Lineage
    from servingrepo.repository.listing import ModelDetails
    from servingrepo.repository.pruning import Pruned, Restored
    from servingrepo.repository.records import Proof, VersionRecord
    from servingrepo.repository.retention import Keep
    from servingrepo.repository.rounds import Round
    from servingrepo.repository.verification import Verification
    from servingrepo.rollout.differences import Checked, Diff
    from servingrepo.rollout.hooks import Hooks
    from servingrepo.rollout.promotion import Promotion
    from servingrepo.rollout.rules import Rules
    from servingrepo.rollout.serving import Reloaded, Switched
    from servingrepo.rollout.status import Status
    from servingrepo.rollout.tracing import Context
    from servingrepo.rundir import Measured, RunScan
    from servingrepo.rundir.export import Exported
    from servingrepo.rundir.gates import Gate
    from servingrepo.serving.engines import Engine, EngineChoice
    from servingrepo.serving.states import Endpoint
    from servingrepo.storage.progress import Notice, Progress

DEFAULT_WAIT = 60.0
"""Seconds for live servers to follow a change."""

DEFAULT_TIMEOUT = 120.0
"""Seconds for a smoke test, the server's start included."""


def init(
    root: str | Path,
    *,
    server_root: str = DEFAULT_SERVER_ROOT,
    disk: Disk | None = None,
    lock_wait: float = 30.0,
) -> tuple[OpenRepository, bool]:
    """Make a directory a repository, with a models.config that a server can start with.

    Args:
        root: The directory; it is created if it is not there. One that is a repository stays as it is.
        server_root: Where TensorFlow Serving sees `<root>/models`: absolute, `/models` in the container.
        disk: For tests: what to write through.
        lock_wait: Seconds to wait for somebody else who makes it one right now.

    Returns:
        The repository, and whether it was made now.

    Raises:
        ConfigInvalid: `server_root` is not an absolute path.
        NoPermission, StorageFailed: It cannot be written.
        Locked: Somebody else held the lock all that time.
    """
    from servingrepo.repository.taking import checked_server_root

    repo, made = initialize(
        as_path(root, "root"),
        server_root=checked_server_root(server_root),
        disk=disk or Disk(),
        lock_wait=lock_wait,
    )
    return OpenRepository(repo), made


def open(root: str | Path, *, disk: Disk | None = None, lock_wait: float = 30.0) -> OpenRepository:
    """Open a repository for reading and writing.

    Raises:
        NoRepository: The root is none.
        NewerFormat: A newer servingrepo wrote it.
    """
    return OpenRepository(open_repository(as_path(root, "root"), disk=disk, lock_wait=lock_wait))


class How(TypedDict, total=False):
    """How live servers follow a change, and what goes with it: keywords of every verb that changes what is served.

    Attributes:
        endpoints: Live servers, as HOST:PORT; without any only models.config changes.
        wait: Seconds that they may take; then everything is put back.
        rules: What may be missing, and what must be answered.
        hooks: Commands before and after the change.
        message: Why: kept in the history.
        dry_run: Say what would happen, and change nothing.
    """

    endpoints: Iterable[str | Endpoint]
    wait: float
    rules: Rules | None
    hooks: Hooks | None
    message: str
    dry_run: bool


class OpenRepository:
    """An opened repository. `root` is its directory, `value` the value that library functions take."""

    def __init__(self, value: Repository) -> None:
        self.value = value

    @property
    def root(self) -> Path:
        """The directory."""
        return self.value.root

    # release --------------------------------------------------------------------------------------

    def scan(self, run: str | Path, *, saved_model: str | Path | None = None) -> RunScan:
        """Find the SavedModel of a run directory, or of an archive of one; see `servingrepo scan`.

        Paths into an archive lead nowhere afterwards.
        """
        from servingrepo.rundir import scan_run
        from servingrepo.rundir.archives import run_directory

        with run_directory(as_path(run, "run")) as place:
            return scan_run(place, saved_model=_given(saved_model))

    def measure(self, run: str | Path, *, progress: Progress = silent) -> Measured:
        """Read what a run measured: TensorBoard's scalars, and metrics in JSON and CSV; see `servingrepo scan`."""
        from servingrepo.rundir import measure_run

        return measure_run(as_path(run, "run"), progress=progress)

    def export(
        self,
        model: str | Path,
        *,
        output: str | Path | None = None,
        allow_lambda: bool = False,
        code: Iterable[str | Path] = (),
        timeout: float = 600.0,
    ) -> Exported:
        """Make a SavedModel from a Keras model file, or from a run that has one; see `servingrepo export`."""
        from servingrepo.rundir.export import export_model

        return export_model(
            Path(model),
            output=Path(output) if output else None,
            allow_lambda=allow_lambda,
            code=tuple(map(Path, code)),
            timeout=timeout,
        )

    def promote(
        self,
        run: str | Path,
        *,
        model: str,
        engine: Engine | EngineChoice | str | None = None,
        version: int | None = None,
        saved_model: str | Path | None = None,
        serve: bool | None = None,
        smoke: bool = True,
        strict: bool = False,
        cases: Iterable[str | Path] = (),
        timeout: float = DEFAULT_TIMEOUT,
        endpoints: Iterable[str | Endpoint] = (),
        wait: float = DEFAULT_WAIT,
        rules: Rules | None = None,
        hooks: Hooks | None = None,
        message: str = "",
        keep: Keep | None = None,
        dry_run: bool = False,
        require: Iterable[str | Gate] = (),
        context: Context | None = None,
        allow_breaking: bool = False,
        allow_ops: Iterable[str] = (),
        contract: str | Path | None = None,
        progress: Progress = silent,
        notice: Notice = unheard,
    ) -> Promotion:
        """Publish a run's SavedModel as the next version, proven, and serve it; see `servingrepo promote`.

        `progress` is told bytes as they are copied, `notice` what should not wait for the result.

        With `keep`, the model is pruned by that policy when the promotion is done: what comes of it is the
        result's `pruned` and `prune_failed`, and no error.

        Raises:
            ServingRepoError: By exit code: 10s a name or number, 20s the export, 30s the repository, 40s the
                lock, 50s the disk, 60s the engine or an endpoint, 70s the smoke test.
        """
        from servingrepo.rollout.hooks import hooked
        from servingrepo.rollout.promotion import Options
        from servingrepo.rollout.pruning import promote_and_prune
        from servingrepo.rollout.rules import STRICT
        from servingrepo.rollout.tracing import Context
        from servingrepo.rundir.archives import run_directory
        from servingrepo.rundir.gates import parse_gate
        from servingrepo.serving.targets import target_of
        from servingrepo.smoke import load_cases

        chosen = self._engine(engine) if smoke and not dry_run else None
        options = Options(
            version=version,
            saved_model=_given(saved_model),
            serve=serve,
            smoke=smoke,
            strict=strict,
            cases=tuple(case for file in cases for case in load_cases(as_path(file, "case file"))),
            timeout=timeout,
            endpoints=as_endpoints(endpoints),
            wait=wait,
            rules=rules or STRICT,
            message=as_text(message, "message"),
            dry_run=dry_run,
            gates=tuple(parse_gate(one) if isinstance(one, str) else one for one in require),
            context=context or Context(),
            allow_breaking=allow_breaking,
            allow_ops=tuple(allow_ops),
            contract=_given(contract),
            target=target_of(chosen or as_choice(engine)),
        )

        given = as_path(run, "run")
        with run_directory(given) as place:
            if place != given:
                packed = msgspec.structs.replace(options.context, archive=os.path.realpath(given))
                options = msgspec.structs.replace(options, context=packed)

            def change(*, dry_run: bool) -> Promotion:
                return promote_and_prune(
                    self.value,
                    place,
                    model=model,
                    engine=chosen if not dry_run else None,
                    options=msgspec.structs.replace(options, dry_run=dry_run),
                    keep=keep,
                    progress=progress,
                    notice=notice,
                )

            done, told = hooked(hooks, "promote", change, dry_run=dry_run)
        return msgspec.structs.replace(done, hooks=told) if told else done

    def verify(
        self,
        *references: str | Path,
        quick: bool = False,
        progress: Progress | None = None,
    ) -> tuple[Verification, ...]:
        """Compare versions with their records, byte by byte; paths too, which have none.

        Without references everything is verified; a bare NAME means all versions of the model. `quick` reads
        small files only, and the result says what was not checked.

        Raises:
            NoSuchVersion: A reference names none.
            StorageFailed: Something cannot be read.
        """
        from servingrepo.repository.verification import verify_path, verify_version

        found: list[Verification] = []
        texts = references or self.models()
        for text in texts:
            if is_path(text):
                found.append(verify_path(as_path(text, "path"), quick=quick, progress=progress))
                continue
            found.extend(
                verify_version(self.value, model, version, quick=quick, progress=progress)
                for model, version in self._versions(str(text))
            )
        return tuple(found)

    def verify_round(
        self,
        *references: str,
        seconds: float,
        quick: bool = False,
        progress: Progress | None = None,
    ) -> Round:
        """Verify for so many seconds, going on where the last call stopped; see `servingrepo verify`.

        Raises:
            NoSuchVersion: A reference names none.
            StorageFailed: Something cannot be read, or the note of what was done not be written.
        """
        from servingrepo.repository.rounds import verify_round

        versions = [one for text in references or self.models() for one in self._versions(text)]
        return verify_round(
            self.value,
            versions,
            seconds=seconds,
            clock=time.monotonic,
            quick=quick,
            progress=progress,
        )

    def size(self, *references: str | Path) -> int:
        """Return how many bytes `verify` would read of the versions that are meant: for its progress."""
        versions = (
            version
            for text in references or self.models()
            if not is_path(text)
            for version in self._versions(str(text))
        )
        return sum(find_version(self.value, *version)[0].size for version in versions)

    def diff(self, old: str | Path, new: str | Path) -> Diff:
        """Compare two versions, or exports that lie anywhere, as their clients and servers see them.

        Raises:
            NoSuchVersion, NothingToRollBack, NoSavedModel, DamagedExport: There is nothing to compare.
        """
        from servingrepo.rollout.differences import diff

        return diff(self.value, old, new)

    def contract(self, reference: str) -> Pinned:
        """Return a model's contract, or what a version promises; see `servingrepo contract`."""
        from servingrepo.repository.contracts import show_contract

        return show_contract(self.value, reference)

    def write_contract(
        self, reference: str, *, overwrite: bool = False, dry_run: bool = False
    ) -> Pinned:
        """Pin what a version promises as its model's contract."""
        from servingrepo.repository.contracts import write_contract

        return write_contract(self.value, reference, overwrite=overwrite, dry_run=dry_run)

    def check_contract(self, model: str, subject: str | Path) -> Checked:
        """Hold a version or an export against what the model's clients rely on; nothing is raised for a breach."""
        from servingrepo.rollout.differences import check_subject

        return check_subject(self.value, check_name(model), subject)

    def smoke(
        self,
        subject: str | Path,
        *,
        engine: Engine | EngineChoice | str | None = None,
        cases: Iterable[str | Path] = (),
        timeout: float = DEFAULT_TIMEOUT,
        notice: Notice = unheard,
    ) -> Proof:
        """Serve a version, or an export that lies anywhere, and send it requests; nothing is recorded.

        The proof may be bad: `servingrepo.smoke.judge` decides.

        Raises:
            LoadFailed, ServerDied, ServerTimeout, EngineUnavailable, BadCase: As they say.
        """
        from servingrepo.rollout.trial import smoke_path, smoke_version
        from servingrepo.smoke import load_cases

        loaded = tuple(case for file in cases for case in load_cases(as_path(file, "case file")))
        chosen = self._engine(engine)
        if is_path(subject):
            return smoke_path(
                as_path(subject, "path"),
                engine=chosen,
                cases=loaded,
                timeout=timeout,
                notice=notice,
            )
        reference = parse_reference(str(subject))
        version = resolve(self.value, reference)
        return smoke_version(
            self.value,
            reference.model,
            version,
            engine=chosen,
            cases=loaded,
            timeout=timeout,
            notice=notice,
        )

    # serve ----------------------------------------------------------------------------------------

    def serve(self, reference: str, **how: Unpack[How]) -> Switched:
        """Serve a version; see `servingrepo serve`."""
        from servingrepo.rollout.serving import serve

        return _changed("serve", partial(serve, self.value, parse_reference(reference)), how)

    def unserve(self, model: str, **how: Unpack[How]) -> Switched:
        """Take a model out of models.config; see `servingrepo unserve`."""
        from servingrepo.rollout.serving import unserve

        return _changed("unserve", partial(unserve, self.value, check_name(model)), how)

    def rollback(
        self,
        model: str,
        *,
        to: str | int | None = None,
        mark_bad: bool = True,
        **how: Unpack[How],
    ) -> Switched:
        """Go back to the version served before, or to a selector such as 7 or "label:stable"."""
        from servingrepo.rollout.serving import rollback

        target = selector_of(check_name(model), str(to)) if to is not None else None
        change = partial(rollback, self.value, check_name(model), to=target, mark_bad=mark_bad)
        return _changed("rollback", change, how)

    def label_set(
        self, reference: str, label: str, *, serve: bool = False, **how: Unpack[How]
    ) -> Switched:
        """Give a version a label; see `servingrepo label set`."""
        from servingrepo.rollout.labels import set_label

        change = partial(set_label, self.value, parse_reference(reference), label, serve=serve)
        return _changed("label", change, how)

    def label_remove(self, model: str, label: str, **how: Unpack[How]) -> Switched:
        """Take a label away; see `servingrepo label remove`."""
        from servingrepo.rollout.labels import remove_label

        return _changed("label", partial(remove_label, self.value, check_name(model), label), how)

    def reload(
        self,
        *,
        endpoints: Iterable[str | Endpoint],
        wait: float = DEFAULT_WAIT,
        poll: bool = False,
        dry_run: bool = False,
    ) -> Reloaded:
        """Make endpoints serve what models.config says; see `servingrepo reload`."""
        from servingrepo.rollout.serving import reload

        return reload(
            self.value,
            endpoints=as_endpoints(endpoints),
            wait=wait,
            poll=poll,
            dry_run=dry_run,
        )

    def status(
        self,
        model: str | None = None,
        *,
        endpoints: Iterable[str | Endpoint] = (),
        wait: float = 0.0,
    ) -> Status:
        """Return disk, config and endpoints side by side, waiting up to `wait` seconds for agreement."""
        from servingrepo.rollout.status import wait_for_agreement

        if model is not None:
            need_state(self.value, check_name(model))
        return wait_for_agreement(
            self.value, model=model, endpoints=as_endpoints(endpoints), seconds=wait
        )

    def watch(
        self,
        model: str | None = None,
        *,
        endpoints: Iterable[str | Endpoint] = (),
        wait: float | None = None,
    ) -> Iterator[Status]:
        """Yield a status after another until all agrees or `wait` seconds are over; without end if it is None."""
        from servingrepo.rollout.status import watch

        if model is not None:
            need_state(self.value, check_name(model))
        return watch(self.value, model=model, endpoints=as_endpoints(endpoints), seconds=wait)

    # keep -----------------------------------------------------------------------------------------

    def models(self) -> tuple[str, ...]:
        """Return the names of the models."""
        return model_names(self.value)

    def list(self) -> tuple[ModelRow, ...]:
        """Return a row for each model."""
        return list_models(self.value)

    def show(self, model: str) -> ModelDetails:
        """Return a model with its versions."""
        return show_model(self.value, check_name(model))

    def show_version(self, reference: str) -> VersionRecord:
        """Return the record of the version that a reference means."""
        parsed = parse_reference(reference)
        return show_version(self.value, parsed.model, resolve(self.value, parsed))

    def lineage(self, reference: str | None = None) -> tuple[Lineage, ...]:
        """Return which run each served version came from: of all models, of one, or one version."""
        from servingrepo.repository.lineage import lineage

        if reference is None:
            return lineage(self.value)
        parsed = parse_reference(reference)
        if parsed.kind == "default":
            return lineage(self.value, check_name(parsed.model))
        return lineage(self.value, parsed.model, version=resolve(self.value, parsed))

    def history(self, model: str | None = None, *, limit: int | None = None) -> Iterator[Event]:
        """Yield events, oldest first, of a model or of all; with a limit the last ones only."""
        if model is not None:
            need_state(self.value, check_name(model))
        path = self.value.layout.history
        if limit is None:
            return history.read(path, model=model)
        last = islice(history.read_backwards(path, model=model), limit)
        return reversed(builtins.list(last))

    def hold(self, model: str, *, message: str = "", dry_run: bool = False) -> Event:
        """Keep promotions from re-pointing a model."""
        from servingrepo.repository import marks

        return marks.hold(
            self.value, check_name(model), reason=as_text(message, "message"), dry_run=dry_run
        )

    def release_hold(self, model: str, *, message: str = "", dry_run: bool = False) -> Event:
        """Let promotions re-point a model again."""
        from servingrepo.repository import marks

        return marks.release_hold(
            self.value, check_name(model), reason=as_text(message, "message"), dry_run=dry_run
        )

    def mark_bad(
        self, reference: str, *, clear: bool = False, message: str = "", dry_run: bool = False
    ) -> Event:
        """Mark a version bad, or take the mark away."""
        from servingrepo.repository import marks

        parsed = parse_reference(reference)
        version = resolve(self.value, parsed)
        change = marks.clear_bad if clear else marks.mark_bad
        reason = as_text(message, "message")
        return change(self.value, parsed.model, version, reason=reason, dry_run=dry_run)

    def prune(
        self,
        *models: str,
        keep: Keep | Mapping[str, Keep] | None = None,
        empty_trash: bool = False,
        older_than: timedelta | None = None,
        endpoints: Iterable[str | Endpoint] = (),
        message: str = "",
        dry_run: bool = False,
    ) -> Pruned:
        """Move versions that no rule of a policy keeps to the trash; see `servingrepo prune`.

        `keep` is a policy, or one for each model; without it only the trash is emptied. `empty_trash` deletes
        for good what is in the trash then, or of that what went there longer than `older_than` ago.

        Raises:
            UsageError: The policy is empty, or there is nothing to do.
            ConfigInvalid: models.config cannot be read, so nobody knows what is served.
            EndpointUnreachable: An endpoint cannot say what it has loaded.
        """
        from servingrepo.repository.retention import policies_for
        from servingrepo.rollout.pruning import prune_models

        names = tuple(dict.fromkeys(map(check_name, models))) or self.models()
        policies = {} if keep is None and empty_trash else policies_for(names, keep)
        return prune_models(
            self.value,
            policies,
            emptying=names if empty_trash else (),
            older_than=older_than,
            endpoints=as_endpoints(endpoints),
            message=as_text(message, "message"),
            dry_run=dry_run,
        )

    def restore(
        self,
        reference: str,
        *,
        message: str = "",
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Restored:
        """Bring NAME@N back from the trash, every byte compared with its record; it is not served.

        Raises:
            NoSuchVersion, VersionDamaged, NumberUsed, ConfigInvalid: As `servingrepo restore` says.
        """
        from servingrepo.repository.pruning import restore

        parsed = parse_reference(reference)
        if parsed.kind != "number":
            raise BadReference(
                f"{reference} does not say which version to restore",
                hint=f"servingrepo show {parsed.model} lists what is in the trash; name one: {parsed.model}@7",
            )
        return restore(
            self.value,
            parsed.model,
            parsed.number,
            message=as_text(message, "message"),
            dry_run=dry_run,
            progress=progress,
        )

    def recover(self) -> tuple[Recovered, ...]:
        """Settle what dead commands left; every writing command does this first by itself."""
        from servingrepo.repository.changes import recover

        with locked(self.value):
            return recover(self.value)

    def _engine(self, engine: Engine | EngineChoice | str | None) -> Engine:
        """Return the engine that was given, or the one that was asked for by name."""
        from servingrepo.serving.engines import EngineChoice, choose_engine

        if engine is None or isinstance(engine, str):
            engine = EngineChoice(name=engine or "auto")
        if not isinstance(engine, EngineChoice):
            return engine
        return choose_engine(
            engine,
            models=self.value.layout.models,
            server_root=self.value.server_root,
            ours=self.models() if engine.name.startswith("remote") else (),
        )

    def _versions(self, text: str) -> Sequence[tuple[str, int]]:
        parsed = parse_reference(text)
        if parsed.kind == "default":
            need_state(self.value, parsed.model)
            return [(parsed.model, one) for one in published_versions(self.value, parsed.model)]
        return [(parsed.model, resolve(self.value, parsed))]


def as_choice(engine: Engine | EngineChoice | str | None) -> Engine | EngineChoice | None:
    """Return the engine, or what was asked for by name."""
    if not isinstance(engine, str):
        return engine
    from servingrepo.serving.engines import EngineChoice

    return EngineChoice(name=engine)


def _changed(action: str, change: Callable[..., Switched], how: How) -> Switched:
    """Make a change in the way that is asked for, between its hooks."""
    from servingrepo.rollout.hooks import hooked
    from servingrepo.rollout.rules import STRICT

    make = partial(
        change,
        endpoints=as_endpoints(how.get("endpoints", ())),
        wait=how.get("wait", DEFAULT_WAIT),
        rules=how.get("rules") or STRICT,
        message=as_text(how.get("message", ""), "message"),
    )
    done, told = hooked(how.get("hooks"), action, make, dry_run=how.get("dry_run", False))
    return msgspec.structs.replace(done, hooks=told) if told else done


def _given(path: str | Path | None) -> Path | None:
    return as_path(path, "path") if path else None


def as_endpoints(endpoints: Iterable[str | Endpoint]) -> tuple[Endpoint, ...]:
    """Read endpoints given as HOST:PORT; a name that has several addresses means each of them.

    Raises:
        UsageError: One is none.
    """
    given = tuple(endpoints)
    if not given:
        return ()
    from servingrepo.serving.addresses import resolved
    from servingrepo.serving.states import Endpoint

    return resolved(Endpoint.parse(one) if isinstance(one, str) else one for one in given)


def is_path(subject: str | Path) -> bool:
    """Tell whether a subject is a path: a Path, or a text with a slash, `.` or `..`."""
    return isinstance(subject, Path) or "/" in subject or subject in {".", ".."}
