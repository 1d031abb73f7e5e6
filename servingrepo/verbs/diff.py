"""diff and contract --check: compare two versions or exports, or one of them with a contract."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from servingrepo.errors import NoSuchVersion
from servingrepo.modelconfig import check_name
from servingrepo.repository.contracts import current_baseline, signatures_of
from servingrepo.repository.proving import Live, Trial, alone_on_server, prove
from servingrepo.repository.references import parse_reference, resolve
from servingrepo.repository.repository import load_record, utc_now
from servingrepo.repository.version_lock import using
from servingrepo.runs.scan import scan_run
from servingrepo.savedmodel.compatibility import (
    Change,
    Comparison,
    Compatibility,
    compare_signatures,
)
from servingrepo.savedmodel.inspection import inspect_export, refuse_defects
from servingrepo.savedmodel.reading import ANYWHERE
from servingrepo.savedmodel.values import Demands, Signature
from servingrepo.servers.engines.choice import choose_engine
from servingrepo.servers.engines.options import EngineChoice
from servingrepo.smoke.drift import Drift
from servingrepo.texts import as_path, is_path
from servingrepo.verbs.engines import engine_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from servingrepo.repository.repository import Repository
    from servingrepo.servers.engines.choice import Engine
    from servingrepo.verbs.options import TrialOptions

__all__ = ["Checked", "Diff", "Subject", "check_subject", "diff"]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a comparison. `demands` is None for a version whose record does not have it."""

    name: str
    tensorflow: str
    signatures: tuple[Signature, ...]
    demands: Demands | None


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """A change from `old` to `new` as clients and servers see it.

    `new_ops` are the operations that only the new graph has. `new_effects` are the new operations that touch files,
    network or processes. Both are None if the record of a side does not list its operations. `signatures` are those
    of both. `drift` is how their answers differ; None without cases.
    """

    old: str
    new: str
    verdict: Compatibility
    changes: tuple[Change, ...]
    tensorflow: tuple[str, str]
    new_ops: tuple[str, ...] | None
    new_effects: tuple[str, ...] | None
    signatures: tuple[tuple[Signature, ...], tuple[Signature, ...]]
    drift: Drift | None = None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a comparison with a contract or with the served version.

    `verdict` is None if the two could not be compared; `why` has the reason.
    """

    subject: str
    against: str
    verdict: Compatibility | None
    changes: tuple[Change, ...]
    why: str = ""


def diff(repo: Repository | None, old: str | Path, new: str | Path, options: TrialOptions) -> Diff:
    """Compare two versions or exports. Without a repository both must be paths.

    With cases, both also answer these in one server, and their answers are compared.

    Raises:
        LoadFailed, ServerDied, ServerTimeout, EngineUnavailable: The engine could not serve `new`.
        BadCase: A file of cases cannot be used.
        NoSuchVersion, NothingToRollBack: A reference names a version that does not exist.
        NoSavedModel, AmbiguousExport, DamagedExport, UnsupportedExport: No whole export is at a path.
    """
    before, after = inspect_subject(repo, old), inspect_subject(repo, new)
    comparison = compare_signatures(before.signatures, after.signatures)
    ops, effects = _new_operations(before.demands, after.demands)
    return Diff(
        old=before.name,
        new=after.name,
        verdict=comparison.verdict,
        changes=comparison.changes,
        tensorflow=(before.tensorflow, after.tensorflow),
        new_ops=ops,
        new_effects=effects,
        signatures=(before.signatures, after.signatures),
        drift=_compare_answers(repo, old, new, options) if options.smoke_cases else None,
    )


def _compare_answers(
    repo: Repository | None, old: str | Path, new: str | Path, options: TrialOptions
) -> Drift | None:
    """Serve both in one server, and send them the cases."""
    with ExitStack() as stack:
        live, candidate = (stack.enter_context(_served_from(repo, one)) for one in (old, new))
        if repo is None:
            choice = options.engine
            engine = choose_engine(choice) if isinstance(choice, EngineChoice) else choice
        else:
            engine = engine_for(repo, options.engine)
            stack.enter_context(alone_on_server(repo, engine, options.notice))
        proof = prove(
            cast("Engine", engine),
            Trial(
                model="model",
                version=candidate.version,
                export=candidate.export,
                inspection=candidate.inspection,
                cases=options.smoke_cases,
                live=live,
            ),
            timeout=options.timeout,
            time=utc_now().isoformat(timespec="milliseconds"),
            notice=options.notice,
        )
    return proof.drift


@contextmanager
def _served_from(repo: Repository | None, subject: str | Path) -> Iterator[Live]:
    """Give the directory from which one side is served, and keep it from being pruned. An export is version 1."""
    if repo is None or is_path(subject):
        scan = scan_run(as_path(subject, "path"))
        version, export, boundary = 1, Path(scan.export), Path(scan.run)
        held: AbstractContextManager[object] = nullcontext()
    else:
        reference = parse_reference(str(subject))
        version = resolve(repo, reference)
        export, boundary = repo.layout.version(reference.model, version), ANYWHERE
        held = using(repo, reference.model, version)
    with held:
        inspection = inspect_export(export, boundary=boundary)
        refuse_defects(inspection, export)
        yield Live(version=version, export=export, inspection=inspection)


def check_subject(repo: Repository, model: str, subject: str | Path) -> Checked:
    """Compare a version or an export with a model's contract, or with its served version if it has no contract.

    Raises:
        BadContract: The contract cannot be used.
        NoSuchVersion, NoSavedModel, DamagedExport and similar errors: There is nothing to check.
    """
    baseline = current_baseline(repo, check_name(model))
    found = inspect_subject(repo, subject)
    comparison = baseline.compare(found.signatures)
    return Checked(
        subject=found.name,
        against=baseline.name,
        verdict=comparison.verdict if comparison is not None else None,
        changes=(comparison or Comparison()).changes,
        why=baseline.unknown,
    )


def inspect_subject(repo: Repository | None, subject: str | Path) -> Subject:
    """Return the side of a comparison that a reference or a path names."""
    if repo is None or is_path(subject):
        return _of_path(as_path(subject, "path"))
    reference = parse_reference(str(subject))
    version = resolve(repo, reference)
    name = f"{reference.model}@{version}"
    record = load_record(repo, reference.model, version)
    if record is not None:
        return Subject(
            name=name,
            tensorflow=record.tensorflow,
            signatures=record.signatures,
            demands=record.demands,
        )
    if signatures_of(repo, reference.model, version) is None:
        raise NoSuchVersion(
            f"there is no version {name}, or it cannot be read",
            hint=f"servingrepo show {reference.model} lists its versions",
        )
    found = _of_path(repo.layout.version(reference.model, version))
    return msgspec.structs.replace(found, name=name)


def _of_path(path: Path) -> Subject:
    scan = scan_run(path)
    export = Path(scan.export)
    inspection = inspect_export(export, boundary=Path(scan.run))
    refuse_defects(inspection, export)
    return Subject(
        name=str(path),
        tensorflow=inspection.tensorflow_version,
        signatures=inspection.signatures,
        demands=inspection.demands,
    )


def _new_operations(
    old: Demands | None, new: Demands | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    if old is None or new is None:
        return None, None
    before = {*old.ops, *old.function_ops}
    ops = tuple(sorted({*new.ops, *new.function_ops} - before))
    had = {one.op for one in old.effects}
    return ops, tuple(one.op for one in new.effects if one.op not in had)
