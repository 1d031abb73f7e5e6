"""Find the SavedModel in a run directory, or explain why none can be taken."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from servingrepo.errors import (
    AmbiguousExport,
    NoPermission,
    NoSavedModel,
    ServingRepoError,
    StorageFailed,
    UnsafeExport,
    UsageError,
)
from servingrepo.runs.listing import SAVED_MODEL_FILES, Folder, Listing, list_names
from servingrepo.runs.missing import nothing_found
from servingrepo.runs.others import others
from servingrepo.runs.savedmodels import candidate, candidates, newest_exports
from servingrepo.runs.values import RunScan, shown
from servingrepo.runs.worktree import commit_of
from servingrepo.storage.beneath import holds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.runs.values import Candidate

__all__ = ["list_run", "scan_run"]

_MAX_LISTED = 20


def list_run(run: Path) -> Listing:
    """List the names in a run directory.

    Raises:
        NoSavedModel: It does not exist, or is no directory.
        NoPermission: It cannot be listed.
        StorageFailed: Reading it failed in another way.
    """
    given = shown(str(run))
    return _listed(_resolved(run, given), given)


def scan_run(
    run: Path,
    *,
    saved_model: Path | None = None,
    seen: Listing | None = None,
    unpacked: bool = False,
) -> RunScan:
    """Find the SavedModel in a run directory, and what else lies there.

    The SavedModel is the directory itself, the one directly below it, or the newest complete
    `export/<exporter>/<timestamp>/`. If there is none of these, it is the only one further down. Only names and a few
    bytes of files are read. Links are not followed out of the run, and nothing is written.

    Args:
        run: The run directory; a link to one is followed.
        saved_model: The SavedModel to take, below the run or absolute, when the run has several.
        unpacked: The run was unpacked from an archive.
        seen: The names in the run, if they were listed already.

    Raises:
        NoSavedModel: There is none. The message says what is there instead, and the hint says how to get one.
        UnsupportedExport: There is an export, in a form that TensorFlow Serving does not load.
        AmbiguousExport: There are several, and none is clearly meant.
        UnsafeExport: Only a link that leaves the run leads to it.
        UsageError: `saved_model` is not in the run.
        NoPermission: The run cannot be listed.
        StorageFailed: Reading it failed in another way.
    """
    given = shown(str(run))
    seen = seen if seen is not None else list_run(run)
    real = seen.run
    found = candidates(seen)
    if saved_model is not None:
        taken = _chosen(real, given, saved_model)
        found = (*(each for each in found if each.real_path != taken.real_path), taken)
    elif not found:
        raise nothing_found(given, seen, others(seen))
    else:
        taken = _picked(given, seen, found)
    return RunScan(
        run=real,
        export=taken.real_path,
        kind=taken.kind,
        candidates=found,
        others=others(seen),
        complete=seen.complete,
        provenance=_provenance(real, taken, unpacked=unpacked),
    )


def _nearby(missing: Path) -> str:
    """Propose existing names that are similar to a missing path."""
    from difflib import get_close_matches  # imported here, because only mistyped paths need it

    try:
        names = [one.name for one in missing.parent.iterdir()]
    except OSError:
        return f"check the path: {missing.parent} cannot be read, or does not exist either"
    close = get_close_matches(missing.name, names)
    listed = " or ".join(str(missing.with_name(one)) for one in close)
    return f"did you mean {listed}?" if close else "check the path"


def _resolved(run: Path, given: str) -> str:
    """Follow the links of the run's own path, and refuse a path that is no directory."""
    try:
        real = os.path.realpath(run, strict=True)
        mode = Path(real).stat().st_mode
    except FileNotFoundError:
        what = "is a link to nothing" if Path(run).is_symlink() else "does not exist"
        raise NoSavedModel(f"the run directory {given} {what}", hint=_nearby(Path(given))) from None
    except NotADirectoryError:
        raise NoSavedModel(f"{given} is below a file", hint="check the path") from None
    except OSError as error:
        _refused(given, error)
    if stat.S_ISDIR(mode):
        return real
    if not stat.S_ISREG(mode):
        raise NoSavedModel(f"{given} is not a directory but a device, socket or FIFO")
    raise _for_a_file(real, given)


def _for_a_file(real: str, given: str) -> ServingRepoError:
    """Return the error for a file that was given as the run; it names the kind of the file as a scan does."""
    parent, name = os.path.split(real)
    if name.startswith("saved_model.pb"):
        return NoSavedModel(
            f"{given} is a file: a SavedModel is the directory that it lies in",
            hint=f"give {shown(str(Path(given).parent))}",
        )
    folder = Folder(real_path=parent, path=".", depth=0, files={name: real}, folders=())
    seen = Listing(
        run=parent, folders=(folder,), links_out=(), unreadable=(), entries=1, complete=True
    )
    error = nothing_found(str(Path(given).parent), seen, others(seen))
    what = error.problems[0] if error.problems else f"{shown(name)}: no model file that is known"
    return NoSavedModel(f"{given} is a file, not a run directory: {what}", hint=error.hint)


def _listed(real: str, given: str, *, boundary: str | None = None) -> Listing:
    try:
        return list_names(real, boundary=boundary)
    except OSError as error:
        _refused(given, error)


def _refused(given: str, error: OSError) -> NoReturn:
    if isinstance(error, PermissionError):
        raise NoPermission(
            f"{given} cannot be read by this user", hint=f"make it readable: {error.strerror}"
        ) from None
    raise StorageFailed(f"{given} cannot be read: {error.strerror or error}") from None


def _picked(given: str, seen: Listing, found: Sequence[Candidate]) -> Candidate:
    """Return the one SavedModel that is meant, according to its place in the run."""
    near = [each for each in found if each.kind in {"self", "child"}]
    exported = [each for each in found if each.kind == "estimator-export"]
    meant = [*near, *newest_exports(exported)]
    if not meant and seen.complete:
        meant = list(found)
    if len(meant) != 1:
        raise _ambiguous(given, seen, meant or found)
    return meant[0]


def _ambiguous(given: str, seen: Listing, found: Sequence[Candidate]) -> AmbiguousExport:
    newest = max(found, key=lambda each: each.written)
    listed = [str(each) for each in found[:_MAX_LISTED]]
    if len(found) > _MAX_LISTED:
        listed.append(f"and {len(found) - _MAX_LISTED} more")
    if not seen.complete:
        listed.append(f"only a part of the run was listed: {seen.entries:,} entries")
    count = f"{len(found)} SavedModels" if len(found) > 1 else "a SavedModel and maybe more"
    return AmbiguousExport(
        f"{given} has {count}, and nothing says which one is meant",
        hint=f"choose with --saved-model, for example --saved-model {shown(newest.path)}",
        problems=listed,
    )


def _chosen(real: str, given: str, saved_model: Path) -> Candidate:
    """Return the SavedModel that the user named; it must lie in the run."""
    named = shown(str(saved_model))
    path = str(Path(real, saved_model))
    try:
        target = os.path.realpath(path, strict=True)
    except FileNotFoundError:
        raise NoSavedModel(
            f"--saved-model {named} does not exist in {given}", hint="it is a path below the run"
        ) from None
    except OSError as error:
        _refused(named, error)
    if Path(target).name in SAVED_MODEL_FILES:
        target = str(Path(target).parent)
    if not holds(real, target):
        # The path may be inside as a text, while a link on the way leads out.
        lexical = os.path.normpath(path)
        if holds(real, lexical):
            raise UnsafeExport(
                f"--saved-model {named} leads out of {given} by a link, to {shown(target)}",
                hint="copy the SavedModel into the run, or give the directory it lies in as the run",
            )
        raise UsageError(
            f"--saved-model {named} does not lie in {given}",
            hint="name a SavedModel below the run, or give its own directory as the run",
        )
    if not Path(target).is_dir():
        raise NoSavedModel(f"--saved-model {named} is not a directory", hint="name a directory")
    below = _listed(target, named, boundary=real)
    if not below.folders[0].is_saved_model:
        raise nothing_found(shown(str(Path(given, saved_model))), below, others(below))
    folder = msgspec.structs.replace(below.folders[0], path=os.path.relpath(target, real))
    return candidate(folder, kind="chosen")


def _provenance(run: str, export: Candidate, *, unpacked: bool) -> dict[str, str]:
    """Describe a run, whose path is absolute and without links, and its SavedModel. Unknown facts are left out.

    `git_head_at_scan` is there if the run lies in a git work tree. It is the commit that is checked out now; the
    model may have been trained with another one. For an unpacked archive no work tree is searched: a `.git` in it may
    be a stranger's.
    """
    written = datetime.fromtimestamp(export.written, UTC)
    facts = {
        "run": run,
        "run_name": Path(run).name,
        "saved_model": export.path,
        "export_written": f"{written:%Y-%m-%dT%H:%M:%SZ}",
    }
    head = commit_of(Path(run)) if not unpacked else None
    if head is not None:
        facts["git_head_at_scan"] = head
    return facts
