"""The files of an export: whether it is one, and whether each file is there and is what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingrepo.savedmodel.reading import Unreadable, files_of
from servingrepo.savedmodel.values import Defect, damaged
from servingrepo.storage.reading import is_git_lfs_pointer
from servingrepo.texts import plural, some

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from servingrepo.savedmodel.reading import ExportFiles
    from servingrepo.savedmodel.restoring import Assets

__all__ = [
    "find_asset_defects",
    "layout_defect",
    "layout_defect_of",
    "top_names",
    "transport_defect",
]

_LONGEST_POINTER = 1024
_PARTS = ("variables", "assets", "assets.extra")


def layout_defect(path: Path, *, boundary: Path | None = None) -> Defect | None:
    """Say what a directory is that holds no SavedModel, or return None if it holds one; see `inspect_export`."""
    names = top_names(files_of(path, boundary=boundary))
    return names if isinstance(names, Defect) else layout_defect_of(names)


def top_names(files: ExportFiles) -> frozenset[str] | Defect:
    """Return the names in the directory of what may be an export, or the defect that it cannot be read as one."""
    try:
        return frozenset(files.names())
    except OSError as error:
        return Defect(
            slug="no-directory",
            kind="missing",
            message=f"it cannot be read as a directory: {error.strerror or error}",
            hint="give the directory that holds saved_model.pb",
        )


def layout_defect_of(names: frozenset[str]) -> Defect | None:
    """Say the same by the names in a directory."""
    if names & {"saved_model.pb", "saved_model.pbtxt"}:
        return None
    if "saved_model.cpb" in names:
        return Defect(
            slug="chunked",
            kind="unsupported",
            message="it has only saved_model.cpb, the chunked form that public servers cannot read",
            hint="save it as saved_model.pb, without experimental_image_format",
        )
    if "export.meta" in names:
        return Defect(
            slug="session-bundle",
            kind="unsupported",
            message="it is a SessionBundle (export.meta), which TensorFlow Serving has removed",
            hint="load it with the TensorFlow that wrote it and save it as a SavedModel",
        )
    models = sorted(name for name in names if name.endswith(".tflite"))
    if models:
        return Defect(
            slug="tflite-only",
            kind="unsupported",
            message=f"it has only a TensorFlow Lite model ({some(models)}) and no saved_model.pb",
            hint="promote the SavedModel that the TensorFlow Lite model was converted from",
        )
    return Defect(
        slug="no-saved-model",
        kind="missing",
        message="it has neither saved_model.pb nor saved_model.pbtxt",
        hint="give the directory that holds saved_model.pb",
    )


def transport_defect(
    files: ExportFiles, names: frozenset[str], read: Iterable[str]
) -> Defect | None:
    """Say what became of an export on its way here, if its files are not what they were.

    Args:
        files: The export.
        names: The names in its directory.
        read: What a server reads of it, besides assets and data files.
    """
    windows = [
        name for name in sorted(names) if name.startswith(tuple(f"{part}\\" for part in _PARTS))
    ]
    if windows and windows[0].partition("\\")[0] not in names:
        return damaged(
            "backslashes",
            f"names have backslashes where there should be directories: {some(windows)}",
            hint="it was packed on Windows: give the zip itself as the run, or unpack it with unzip or 7z",
        )
    try:
        data = sorted(one for one in files.names("variables") if one.startswith("variables.data-"))
    except OSError:
        data = []
    return _pointers(files, [*read, *(f"variables/{name}" for name in data)])


def _pointers(files: ExportFiles, names: Iterable[str]) -> Defect | None:
    """Return the defect that files of an export were not fetched by Git LFS, if some were not."""
    found = [name for name in names if _is_pointer(files, name)]
    if not found:
        return None
    are = plural(len(found), "file is a Git LFS pointer", "files are Git LFS pointers")
    return damaged(
        "git-lfs-pointer",
        f"{are} and not the content: {some(found)}",
        hint="fetch the content where the repository was cloned: git lfs pull",
    )


def _is_pointer(files: ExportFiles, name: str) -> bool:
    if not 0 < (files.size(name) or 0) <= _LONGEST_POINTER:
        return False
    try:
        return is_git_lfs_pointer(files.read(name, limit=_LONGEST_POINTER))
    except Unreadable:
        return False


def find_asset_defects(
    files: ExportFiles, assets: Assets
) -> tuple[tuple[Defect, ...], tuple[str, ...]]:
    """Return what is wrong with the files that the graph names in `assets/`, and notes on unread ones."""
    names = (*assets.read, *assets.unread)
    read = frozenset(assets.read)  # there may be very many
    outside = [name for name in names if name.startswith("/") or ".." in name.split("/")]
    beyond = frozenset(outside)
    sizes = {name: files.size(f"assets/{name}") for name in names if name not in beyond}
    missing = [name for name, size in sizes.items() if size is None]
    defects = []
    if outside:
        defects.append(
            damaged(
                "asset-outside",
                f"the graph names assets outside of assets/: {some(outside)}",
                hint="do not serve an export from a source that you do not trust",
            )
        )
    needed = [f"assets/{name}" for name in missing if name in read]
    if needed:
        defects.append(
            damaged(
                "asset-missing",
                f"{plural(len(needed), 'file is', 'files are')} missing that the graph reads: "
                f"{some(needed)}",
            )
        )
    pointers = _pointers(
        files, [f"assets/{name}" for name in names if name in read and sizes.get(name)]
    )
    if pointers is not None:
        defects.append(pointers)
    notes = []
    unread = [f"assets/{name}" for name in missing if name not in read]
    if unread:
        notes.append(f"the graph names, but does not read, missing files: {some(unread)}")
    empty = [f"assets/{name}" for name, size in sizes.items() if size == 0]
    if empty:
        notes.append(f"the graph names files that are empty: {some(empty)}")
    return tuple(defects), tuple(notes)
