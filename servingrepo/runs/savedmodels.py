"""Find the SavedModels in a run: where they are, when they were written, how large they are.

The room `savedmodel` checks whether one is whole and can be served.

tf.estimator keeps SavedModels as `export/<exporter>/<timestamp>/` in the model_dir, next to checkpoints and events.
An exporter writes to `temp-<timestamp>` and renames it at the end (tensorflow_estimator's export_lib), so a temporary
directory is an unfinished export. TFX's Trainer for estimators leaves the same in `Format-Serving/`, and earlier
releases in `serving_model_dir/` (tfx/utils/path_utils.py).
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from servingrepo.runs.listing import SAVED_MODEL_FILES, written
from servingrepo.runs.values import Candidate, ExportKind, Other
from servingrepo.storage.beneath import opened_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.runs.listing import Folder, Listing

__all__ = ["candidate", "candidates", "newest_exports", "unservable"]

_EXPORT = re.compile(r"(?:(?:Format-Serving|serving_model_dir)/)?export/(?:[^/]+/)?[0-9]+")
"""Where an exporter leaves a finished export, below the run."""
_MAX_FILES = 20_000
_FOR_EVALUATION = {"Format-TFMA", "eval_model_dir"}
_TEMPORARY = re.compile(r"(?:.*/)?temp-(?:[0-9]+|b.[0-9]+.)")  # b'123': TensorFlow 1.0 to 1.3


def newest_exports(exports: Iterable[Candidate]) -> list[Candidate]:
    """Return the newest export of each exporter: the one with the highest timestamp as its name."""
    newest: dict[str, tuple[int, Candidate]] = {}
    for export in exports:
        exporter, _, timestamp = export.path.rpartition("/")
        if exporter not in newest or int(timestamp) > newest[exporter][0]:
            newest[exporter] = (int(timestamp), export)
    return [export for _, export in newest.values()]


def candidates(seen: Listing) -> tuple[Candidate, ...]:
    """Return every SavedModel in a listing, by path. One that links also lead to is there once."""
    found: dict[str, Candidate] = {}
    for folder in seen.folders:
        unfit = _TEMPORARY.fullmatch(folder.path) or _is_for_evaluation(folder.path)
        if folder.is_saved_model and not unfit:
            kind: ExportKind = "nested"
            if folder.depth <= 1:
                kind = "child" if folder.depth else "self"
            elif _EXPORT.fullmatch(folder.path):
                kind = "estimator-export"
            found.setdefault(folder.real_path, candidate(folder, kind=kind))
    return tuple(sorted(found.values(), key=lambda each: each.path))


def candidate(folder: Folder, *, kind: ExportKind) -> Candidate:
    """Describe the SavedModel in a folder."""
    files = [folder.files[name] for name in SAVED_MODEL_FILES if name in folder.files]
    return Candidate(
        path=folder.path,
        real_path=folder.real_path,
        kind=kind,
        written=written(files[0]),
        size=_size(folder.real_path),
    )


def unservable(folder: Folder) -> Iterator[Other]:
    """Yield the exports in a folder that TensorFlow Serving does not load."""
    unfinished = _TEMPORARY.fullmatch(folder.path)
    if folder.is_saved_model and _is_for_evaluation(folder.path):
        note = "a SavedModel for evaluation (TFMA), not for serving"
        yield Other(kind="eval-saved-model", path=folder.path, note=note)
        return
    if folder.is_saved_model and not unfinished:
        return
    if "saved_model.cpb" in folder.files:
        yield Other(
            kind="chunked-saved-model",
            path=folder.below("saved_model.cpb"),
            note="a SavedModel in chunks, which TensorFlow Serving finds but cannot load",
        )
    if unfinished or _EXPORT.fullmatch(folder.path):
        yield Other(kind="incomplete-export", path=folder.path, note="an unfinished export")
    elif "variables" in folder.folders and (
        "assets" in folder.folders or "fingerprint.pb" in folder.files
    ):
        note = "a SavedModel's directories without its saved_model.pb"
        yield Other(kind="incomplete-export", path=folder.path, note=note)


def _is_for_evaluation(path: str) -> bool:
    """Tell whether TFX's Trainer left an EvalSavedModel here (tfx/utils/path_utils.py)."""
    return not _FOR_EVALUATION.isdisjoint(path.split("/"))


def _size(folder: str) -> int:
    """Add up the sizes of the files, without links. Of a very large tree only a part is counted."""
    size = files = 0
    with suppress(OSError), opened_plain(folder) as top:
        for _, _, names, at in os.fwalk(".", dir_fd=top):
            for name in names:
                files += 1
                with suppress(OSError):
                    facts = os.stat(name, dir_fd=at, follow_symlinks=False)
                    size += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
            if files > _MAX_FILES:
                break
    return size
