"""Verification: compare a version or export on disk with its record, its fingerprint and its checksums.

The result lists the differences, the defects, and what was not checked. A round of verification goes through many
versions in sittings of limited time.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from servingrepo.errors import RepositoryDamaged, StorageFailed
from servingrepo.repository import journal
from servingrepo.repository.records import SCHEMA, encode, load
from servingrepo.repository.repository import Repository, find_version, load_record, record_numbers
from servingrepo.repository.trash import find_trashed
from servingrepo.repository.version_lock import using
from servingrepo.savedmodel.files import layout_defect
from servingrepo.savedmodel.fingerprint import GRAPH_ONLY
from servingrepo.savedmodel.inspection import Inspection, inspect_export
from servingrepo.savedmodel.values import Defect, TensorCheck
from servingrepo.savedmodel.variables import read_variables
from servingrepo.storage.copying import hash_source
from servingrepo.storage.disk import storage_errors
from servingrepo.storage.hashing import content_digest, hash_file, hash_tree
from servingrepo.storage.manifest import Differences, Manifest, compare, compare_sizes
from servingrepo.storage.progress import silent
from servingrepo.storage.tree import SourceTree, read_tree
from servingrepo.texts import plural, some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from servingrepo.repository.records import VersionRecord
    from servingrepo.savedmodel.variables import Variables
    from servingrepo.storage.progress import Progress


NO_DIFFERENCES = Differences(extra=(), missing=(), changed=())

QUICK_LIMIT = 1 << 20
"""Files up to this size are compared byte by byte even in a quick verification: graphs, indexes, vocabularies."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a verification.

    Attributes:
        subject: The reference or path that was given.
        path: The export.
        run: The run directory in which the export was found; empty if the export itself was given.
        model: The model of a published version.
        version: The number of a published version.
        against: The record that the files were compared with. None for a path without a record: then only the
            SavedModel's own checksums were compared.
        quick: Whether large files were left unread.
        files: The number of files.
        size: The bytes of all files.
        digest: The content digest; empty if some bytes were not read.
        differences: The differences between record and files.
        inspection: What the SavedModel's files say.
        tensors: The comparison of every tensor with its checksum; None if there are none, or they were not read.
        vouched: Whether `tensors` is what the record says. These bytes have the digests of the record, so what was
            proven of them then is proven of them now.
        not_checked: What was not compared with any checksum, a line each.
        in_trash: Whether the version lies in the trash, from which `restore` brings it back.
    """

    subject: str
    path: str
    run: str = ""
    model: str | None
    version: int | None
    against: str | None
    quick: bool = False
    files: int
    size: int
    digest: str
    differences: Differences
    inspection: Inspection
    tensors: TensorCheck | None = None
    vouched: bool = False
    not_checked: tuple[str, ...] = ()
    in_trash: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything that was checked is right."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything wrong, a line each."""
        damaged = self.tensors.defects() if self.tensors is not None else ()
        return (
            *self.differences.lines(),
            *(f"{one.slug}: {one.message}" for one in (*self.inspection.defects, *damaged)),
        )


def verify_version(
    repo: Repository,
    model: str,
    version: int,
    *,
    quick: bool = False,
    deep: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Compare every byte of a version with its record, and every tensor with its checksum.

    If the record says that all tensors were right, and their bytes are as in the record, that is not done again. A
    version in the trash is compared where it lies. A lost version is damaged.

    Args:
        repo: The repository.
        model: The model.
        version: The version.
        quick: Read only small files, and compare the sizes of the others.
        deep: Compare every tensor with its checksum, whatever the record says.
        progress: Called with the bytes of each file that is done.

    Raises:
        NoSuchVersion: There is no such version of ours.
        StorageFailed: It cannot be read.
    """
    subject = f"{model}@{version}"
    if is_lost(repo, model, version):
        record = load_record(repo, model, version)
        if record is not None:
            path = repo.layout.version(model, version)
            return _unread_version(subject, record.model, version, path, quick=quick, why=_LOST)
    with using(repo, model, version):
        record, path = find_version(repo, model, version)
        compare_it = _quickly if quick else partial(_whole, deep=deep, progress=progress)
        found = compare_it(subject, path, record=record)
    return msgspec.structs.replace(found, in_trash=path != repo.layout.version(model, version))


def verify_one_of_many(
    repo: Repository,
    model: str,
    version: int,
    *,
    quick: bool = False,
    deep: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Verify one version of several: a version that cannot be read is damaged and must not hide the others.

    Raises:
        NoSuchVersion: There is no such version of ours.
    """
    try:
        return verify_version(repo, model, version, quick=quick, deep=deep, progress=progress)
    except (StorageFailed, RepositoryDamaged) as error:
        why = Defect(
            slug="unreadable", kind="damaged", message=error.message, hint=error.hint or ""
        )
        path = repo.layout.version(model, version)
        return _unread_version(f"{model}@{version}", model, version, path, quick=quick, why=why)


_LOST = Defect(
    slug="lost",
    kind="missing",
    message="its directory is gone, and no command of servingrepo took it",
    hint="copy it back from a backup, or serve another version",
)


def _unread_version(
    subject: str, model: str, version: int, path: Path, *, quick: bool, why: Defect
) -> Verification:
    return Verification(
        subject=subject,
        path=str(path),
        model=model,
        version=version,
        against="its record",
        quick=quick,
        files=0,
        size=0,
        digest="",
        differences=NO_DIFFERENCES,
        inspection=Inspection(path=str(path), defects=(why,)),
        not_checked=("its files: they were not read",),
    )


def compare_with_record(
    path: Path, record: VersionRecord, *, progress: Progress | None = None
) -> Differences:
    """Compare every byte of a tree with a record, wherever it lies.

    Raises:
        StorageFailed: It cannot be read.
    """
    return compare(record.manifest, hash_tree(path, progress=progress))


def _quickly(subject: str, path: Path, *, record: VersionRecord) -> Verification:
    differences = compare_sizes(record.manifest, path)
    changed, unread = _changed_small_files(path, record, differences)
    differences = msgspec.structs.replace(
        differences, changed=tuple(sorted({*differences.changed, *changed}))
    )
    inspection = inspect_export(path)
    return Verification(
        subject=subject,
        path=str(path),
        model=record.model,
        version=record.version,
        against=_against(record),
        quick=True,
        files=len(record.manifest.files),
        size=record.size,
        digest="",
        differences=differences,
        inspection=inspection,
        not_checked=_unread(unread),
    )


def verify_path(
    path: Path,
    *,
    quick: bool = False,
    progress: Progress | None = None,
    boundary: Path | None = None,
) -> Verification:
    """Check an export without a record by its own checksums. In a run directory, check the export that is in it.

    Its links may not leave `boundary`, which is by default the run, or the export itself.

    Raises:
        NoSavedModel, AmbiguousExport: The directory has no export, or several that may be meant.
        UnsafeExport: The export has links that leave it, or devices, sockets or FIFOs.
        StorageFailed: It cannot be read.
    """
    export, run = path, ""
    if _may_be_a_run(path):
        from servingrepo.runs.scan import scan_run  # lazily: a published version is no run

        scan = scan_run(path)
        export, run = Path(scan.export), str(path)
    if boundary is None:
        boundary = Path(run).resolve() if run else export
    tree = read_tree(export, boundary=boundary)
    if not quick:
        found = _whole(str(path), export, record=None, progress=progress, tree=tree)
        return msgspec.structs.replace(found, run=run)
    sizes = {one.path: one.size for one in tree.files if one.path.startswith("variables/")}
    sizes.pop("variables/variables.index", None)
    inspection = inspect_export(export, boundary=boundary)
    return Verification(
        subject=str(path),
        path=str(export),
        run=run,
        model=None,
        version=None,
        against=None,
        quick=True,
        files=len(tree.files),
        size=tree.size,
        digest="",
        differences=NO_DIFFERENCES,
        inspection=inspection,
        not_checked=(*_unread(sizes), *_uncovered(export, inspection)),
    )


def _may_be_a_run(path: Path) -> bool:
    """Tell whether a directory may hold an export because it is not itself one of any kind."""
    defect = layout_defect(path) if path.is_dir() else None
    return defect is not None and defect.slug == "no-saved-model"


def _changed_small_files(
    path: Path, record: VersionRecord, differences: Differences
) -> tuple[list[str], dict[str, int]]:
    """Return the small files whose bytes differ, and the sizes of the large files, which are not read."""
    known = {*differences.missing, *differences.changed}
    changed, unread = [], {}
    for file in record.manifest.files:
        if file.path in known:
            continue
        if file.size > QUICK_LIMIT:
            unread[file.path] = file.size
            continue
        with storage_errors("read", path / file.path):
            if hash_file(path / file.path, file.path) != file:
                changed.append(file.path)
    return changed, unread


def _whole(
    subject: str,
    path: Path,
    *,
    record: VersionRecord | None,
    progress: Progress | None,
    deep: bool = False,
    tree: SourceTree | None = None,
) -> Verification:
    """Read and compare every byte. A `tree` has no record: we read it as a promotion does, with links followed."""
    proven = None if deep else _proven_tensors(record)
    boundary = tree.boundary if tree is not None else None
    variables = read_variables(path, boundary=boundary)
    tensors = variables.tensors() if proven is None else None
    watch = tensors.watch if tensors is not None else None
    if tree is not None:
        actual = hash_source(tree, progress=progress or silent, watch=watch)
    else:
        actual = hash_tree(path, progress=progress, watch=watch)
    differences = compare(record.manifest, actual) if record is not None else NO_DIFFERENCES
    if proven is not None and differences.touch("variables/"):
        # The record vouches for other bytes. Read these again, to find the tensors that are damaged.
        return _whole(subject, path, record=record, progress=None, deep=True)
    inspection = inspect_export(path, boundary=boundary, variables=variables)
    checked = tensors.result() if tensors is not None else proven
    return Verification(
        subject=subject,
        path=str(path),
        model=record.model if record is not None else None,
        version=record.version if record is not None else None,
        against=_against(record) if record is not None else None,
        files=len(actual.files),
        size=actual.size,
        digest=content_digest(actual),
        differences=differences,
        inspection=inspection,
        tensors=checked,
        vouched=proven is not None,
        not_checked=()
        if record is not None
        else (
            *_uncovered(path, inspection),
            *_unchecked_variables(variables, checked),
            *_unvouched(actual, variables),
        ),
    )


def _proven_tensors(record: VersionRecord | None) -> TensorCheck | None:
    """Return what a record says of its tensors, if all were compared with their checksums and were right."""
    tensors = record.tensors if record is not None else None
    return tensors if tensors is not None and tensors.complete else None


def _against(record: VersionRecord) -> str:
    return f"the record of {record.created}"


def _unread(sizes: dict[str, int]) -> tuple[str, ...]:
    if not sizes:
        return ()
    count, size = len(sizes), sum(sizes.values())
    files = plural(count, "large file", "large files")
    return (f"the bytes of {files} ({size:,} bytes): not read",)


def _uncovered(path: Path, inspection: Inspection) -> tuple[str, ...]:
    """Say if no hash covers the bytes of the graph."""
    name = inspection.file or "saved_model.pb"
    if inspection.fingerprint is None:
        missing = (
            "there is none" if not os.path.lexists(path / "fingerprint.pb") else "it is unreadable"
        )
        return (f"{name}: its hash would be in fingerprint.pb, but {missing}",)
    field = inspection.fingerprint.field("saved_model_checksum")
    if field.verdict == "matches" and inspection.fingerprint.producer == GRAPH_ONLY:
        return (f"{name}: what is not graph, signature or function: no hash in fingerprint.pb",)
    if field.verdict in {"matches", "differs"}:
        return ()
    return (f"{name}: the verdict on its hash in fingerprint.pb is: {field.verdict}",)


def _unchecked_variables(variables: Variables, checked: TensorCheck | None) -> tuple[str, ...]:
    lines = []
    if checked is None:
        if variables.problem:
            lines.append("tensors: variables.index cannot be read")
        return tuple(lines)
    if variables.index is not None and variables.index.unreferenced:
        size = plural(variables.index.unreferenced, "byte", "bytes")
        lines.append(f"{size} of variables/variables.index outside its blocks")
    missed = checked.tensors - checked.checked
    if missed > 0:
        what = plural(missed, "tensor", "tensors")
        lines.append(f"{what}, in files that are missing or in another byte order")
    lines += [
        f"{size} bytes of {file} that belong to no tensor"
        for file, size in checked.unreferenced.items()
    ]
    return tuple(lines)


def _unvouched(actual: Manifest, variables: Variables) -> tuple[str, ...]:
    """Say which files have no checksum at all."""
    known = {"saved_model.pb", "saved_model.pbtxt", "variables/variables.index"}
    if variables.index is not None:
        known |= {f"variables/{name}" for name in variables.index.shards}
    others = [one for one in actual.files if one.path not in known]
    if not others:
        return ()
    size = sum(one.size for one in others)
    what = plural(len(others), "file that has", "files that have")
    names = some([one.path for one in others])
    return (f"{what} no checksum ({size:,} bytes): {names}",)


def lost_versions(repo: Repository, model: str) -> tuple[int, ...]:
    """Return the numbers of a model's versions that are lost, ascending.

    Raises:
        StorageFailed: The records cannot be listed.
    """
    return _lost(repo, model, record_numbers(repo, model))


def is_lost(repo: Repository, model: str, version: int) -> bool:
    """Tell whether one version is lost."""
    return bool(_lost(repo, model, (version,)))


def _lost(repo: Repository, model: str, versions: tuple[int, ...]) -> tuple[int, ...]:
    """Return the versions that are lost: they have a record, but no directory.

    A promotion writes the record before the directory appears, and an emptying of the trash removes the record after
    the directory. Both have an intent in the journal, dead or alive, so a version that an intent names is not lost.
    Versions may appear or go meanwhile, so missing ones are checked again after the journal was read.
    """
    missing = [one for one in versions if _is_missing(repo, model, one)]
    if not missing:
        return ()
    busy: set[int | None] = set()
    for intent, _ in journal.read_all(repo.layout.journal, leave_out_unreadable=True):
        if intent.model == model:
            busy |= {intent.version, *(intent.event.versions if intent.event is not None else ())}
    return tuple(one for one in missing if one not in busy and _is_missing(repo, model, one))


def _is_missing(repo: Repository, model: str, version: int) -> bool:
    layout = repo.layout
    return (
        not layout.version(model, version).is_dir()
        and find_trashed(layout, model, version) is None
        and not layout.version(model, version).is_dir()  # a restore may just have brought it back
        and layout.record(model, version).exists()
    )


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one sitting of a round.

    Attributes:
        verified: The versions that this sitting verified.
        before: The versions that earlier sittings of this round found whole.
        left: The versions for the next sitting; if there are none, the round is over.
        damaged: The versions that earlier sittings found damaged, and that this sitting had no time to verify again.
    """

    verified: tuple[Verification, ...]
    before: tuple[str, ...]
    left: tuple[str, ...]
    damaged: tuple[str, ...] = ()


class RoundState(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a round: digests of the versions found whole and of those found damaged, by reference."""

    schema: int = SCHEMA
    started: str
    quick: bool
    deep: bool = False
    done: dict[str, str] = {}
    damaged: dict[str, str] = {}


def verify_round(
    repo: Repository,
    versions: Sequence[tuple[str, int]],
    *,
    seconds: float,
    clock: Callable[[], float],
    quick: bool = False,
    deep: bool = False,
    progress: Progress | None = None,
) -> Round:
    """Verify versions until the time is over, but at least one. A version that was begun is verified to its end.

    Every sitting of a round reports damaged versions, so they are never noted as done. A version that cannot be read
    is damaged. Versions that no sitting has verified come first, so that every round ends in spite of damage.

    Raises:
        NoSuchVersion: There is no such version of ours.
        StorageFailed: The file of the round cannot be written.
    """
    ends = clock() + seconds
    state = _load(repo, quick=quick, deep=deep)
    digests = {f"{model}@{one}": _digest(repo, model, one) for model, one in versions}
    done, damaged = (
        {key: digest for key, digest in noted.items() if digests.get(key) == digest}
        for noted in (state.done, state.damaged)
    )
    before = tuple(key for key in digests if key in done)
    pending = [(model, one) for model, one in versions if f"{model}@{one}" not in done]
    pending.sort(key=lambda one: f"{one[0]}@{one[1]}" in damaged)
    known = frozenset(damaged)
    found: list[Verification] = []
    for model, one in pending:
        if found and clock() >= ends:
            break
        result = verify_one_of_many(repo, model, one, quick=quick, deep=deep, progress=progress)
        found.append(result)
        key = result.subject
        (done if result.ok else damaged)[key] = digests[key]
        if result.ok:
            damaged.pop(key, None)
        _save(repo, msgspec.structs.replace(state, done=done, damaged=damaged))
    rest = [f"{model}@{one}" for model, one in pending[len(found) :]]
    left = tuple(key for key in rest if key not in known)
    if not left:
        _save(repo, msgspec.structs.replace(state, done={}, damaged={}))
    return Round(
        verified=tuple(found),
        before=before,
        left=left,
        damaged=tuple(key for key in rest if key in known),
    )


def _digest(repo: Repository, model: str, version: int) -> str:
    """Return the digest of a version's record; empty, which is no version's digest, if the record cannot be read."""
    try:
        record = load_record(repo, model, version)
    except (RepositoryDamaged, StorageFailed):
        return ""
    return record.digest if record is not None else ""


def _load(repo: Repository, *, quick: bool, deep: bool) -> RoundState:
    """Return the state of this round. A round of the other kind, or one whose file is broken, begins anew."""
    try:
        state = load(repo.layout.round, RoundState)
    except RepositoryDamaged:
        state = None
    same = state is not None and (state.quick, state.deep) == (quick, deep)
    if state is None or not same or not (state.done or state.damaged):
        return RoundState(started=repo.now(), quick=quick, deep=deep)
    return state


def _save(repo: Repository, state: RoundState) -> None:
    repo.disk.replace_file(repo.layout.round, encode(state), step="round")
