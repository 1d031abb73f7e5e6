"""From a run directory to a proven version: scan, promote, verify, compare, smoke-test."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.api.arguments import (
    DEFAULT_TIMEOUT,
    DEFAULT_WAIT,
    as_choice,
    as_endpoints,
    as_message,
    as_rules,
    is_path,
    optional_path,
)
from servingrepo.api.opened import Opened
from servingrepo.errors import NoSuchVersion, RepositoryDamaged, StorageFailed
from servingrepo.modelconfig import check_name
from servingrepo.repository.references import parse_reference, resolve
from servingrepo.repository.repository import (
    find_version,
)
from servingrepo.runs.mounts import RUN_WAIT
from servingrepo.storage.progress import silent, unheard, untold
from servingrepo.texts import as_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servingrepo.fleet.hooks import Hooks
    from servingrepo.fleet.rules import Rules
    from servingrepo.repository.contracts import Pinned
    from servingrepo.repository.records import Proof
    from servingrepo.repository.retention import Keep
    from servingrepo.repository.rounds import Round
    from servingrepo.repository.verification import Verification
    from servingrepo.runs import Measured, RunScan
    from servingrepo.runs.export import Exported
    from servingrepo.runs.gates import Gate
    from servingrepo.runs.tracing import Context
    from servingrepo.servers.engines.choice import Engine, EngineChoice
    from servingrepo.servers.states import Endpoint
    from servingrepo.storage.progress import Notice, Progress, Told
    from servingrepo.verbs.diff import Checked, Diff
    from servingrepo.verbs.values import Promotion


class Releasing(Opened):
    """From a run directory to a proven version: scan, promote, verify, compare, smoke-test."""

    def scan(
        self,
        run: str | Path,
        *,
        saved_model: str | Path | None = None,
        run_wait: float = RUN_WAIT,
    ) -> RunScan:
        """Find the SavedModel of a run directory, or of an archive of one; see `servingrepo scan`.

        Paths into an archive lead nowhere afterwards. `run_wait` is how many seconds a network file system with
        the run may take to say that it is there, before anything is read; one that hangs later hangs this call,
        too: only the commands leave it behind then.

        Raises:
            StorageHung: It did not answer.
        """
        from servingrepo.runs import scan_run
        from servingrepo.runs.archives import run_directory
        from servingrepo.runs.mounts import refuse_hung

        given = as_path(run, "run")
        refuse_hung(given, seconds=run_wait)
        with run_directory(given) as place:
            chosen = optional_path(saved_model)
            return scan_run(place, saved_model=chosen, unpacked=place != given)

    def measure(
        self, run: str | Path, *, progress: Progress = silent, run_wait: float = RUN_WAIT
    ) -> Measured:
        """Read what a run measured: TensorBoard's scalars, and metrics in JSON and CSV; see `servingrepo scan`.

        Raises:
            StorageHung: The run lies on a network file system that does not answer; see `scan`.
        """
        from servingrepo.runs import measure_run
        from servingrepo.runs.mounts import refuse_hung

        refuse_hung(as_path(run, "run"), seconds=run_wait)
        return measure_run(as_path(run, "run"), progress=progress)

    def export(
        self,
        model: str | Path,
        *,
        output: str | Path | None = None,
        allow_lambda: bool = False,
        code: Iterable[str | Path] = (),
        timeout: float = 600.0,
        run_wait: float = RUN_WAIT,
    ) -> Exported:
        """Make a SavedModel from a Keras model file, or from a run that has one; see `servingrepo export`."""
        from servingrepo.runs.export import export_model
        from servingrepo.runs.mounts import refuse_hung

        refuse_hung(as_path(model, "model"), seconds=run_wait)
        return export_model(
            as_path(model, "model"),
            output=optional_path(output),
            allow_lambda=allow_lambda,
            code=tuple(map(Path, code)),
            timeout=timeout,
            disk=self.value.disk,
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
        run_wait: float = RUN_WAIT,
        run_read: Told = untold,
    ) -> Promotion:
        """Publish a run's SavedModel as the next version, proven, and serve it; see `servingrepo promote`.

        `progress` is told bytes as event files are read and as the export is copied, `notice` what should not
        wait for the result, and `run_read` that nothing more is read from the run.

        With `keep`, the model is pruned by that policy when the promotion is done: what comes of it is the
        result's `pruned` and `prune_failed`, and no error.

        Raises:
            ServingRepoError: By exit code: 10s a name or number, 20s the export, 30s the repository, 40s the
                lock, 50s the disk, 60s the engine or an endpoint, 70s the smoke test.
        """
        from servingrepo.fleet.hooks import hooked
        from servingrepo.runs.archives import run_directory
        from servingrepo.runs.gates import parse_gate
        from servingrepo.runs.mounts import refuse_hung
        from servingrepo.runs.tracing import Context
        from servingrepo.servers.engines.choice import expected_server
        from servingrepo.smoke import load_cases
        from servingrepo.verbs.prune import promote_and_prune
        from servingrepo.verbs.values import Options

        chosen = self._engine(engine) if smoke and not dry_run else None
        servers = as_endpoints(endpoints)
        options = Options(
            version=version,
            saved_model=optional_path(saved_model),
            serve=serve,
            smoke=smoke,
            strict=strict,
            cases=tuple(case for file in cases for case in load_cases(as_path(file, "case file"))),
            timeout=timeout,
            endpoints=servers,
            wait=wait,
            rules=as_rules(rules, servers),
            message=as_message(message),
            dry_run=dry_run,
            gates=tuple(parse_gate(one) if isinstance(one, str) else one for one in require),
            context=context or Context(),
            allow_breaking=allow_breaking,
            allow_ops=tuple(allow_ops),
            contract=optional_path(contract),
            target=expected_server(chosen or as_choice(engine)),
        )

        given = as_path(run, "run")
        refuse_hung(given, seconds=run_wait)
        with run_directory(given) as place:
            if place != given:
                packed = msgspec.structs.replace(options.context, archive=os.path.realpath(given))
                options = msgspec.structs.replace(options, context=packed)

            def change(*, dry_run: bool) -> Promotion:
                rehearsed = dry_run and not options.dry_run  # for a command before it
                return promote_and_prune(
                    self.value,
                    place,
                    model=model,
                    engine=chosen if not dry_run else None,
                    options=msgspec.structs.replace(options, dry_run=dry_run),
                    keep=keep,
                    progress=silent if rehearsed else progress,
                    notice=notice,
                    run_read=untold if rehearsed else run_read,
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

        A version that cannot be read is damaged if others are verified with it. So is one that is gone although
        no command of servingrepo took it.

        Raises:
            NoSuchVersion: A reference names none.
            StorageFailed: The only version that is meant, or a path, cannot be read.
        """
        from servingrepo.repository.verification import (
            verify_one_of_many,
            verify_path,
            verify_version,
        )

        found: list[Verification] = []
        texts = references or self.models()
        for text in texts:
            if is_path(text):
                found.append(verify_path(as_path(text, "path"), quick=quick, progress=progress))
                continue
            versions = self._versions(str(text))
            alone = len(texts) == len(versions) == 1
            verify_it = verify_version if alone else verify_one_of_many
            found.extend(
                verify_it(self.value, model, version, quick=quick, progress=progress)
                for model, version in versions
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
        total = 0
        for text in references or self.models():
            for version in () if is_path(text) else self._versions(str(text)):
                with suppress(NoSuchVersion, RepositoryDamaged, StorageFailed):
                    total += find_version(self.value, *version)[0].size
        return total

    def diff(self, old: str | Path, new: str | Path) -> Diff:
        """Compare two versions, or exports that lie anywhere, as their clients and servers see them.

        Raises:
            NoSuchVersion, NothingToRollBack, NoSavedModel, DamagedExport: There is nothing to compare.
        """
        from servingrepo.verbs.diff import diff

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
        from servingrepo.verbs.diff import check_subject

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
        from servingrepo.smoke import load_cases
        from servingrepo.verbs.smoke import smoke_path, smoke_version

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
