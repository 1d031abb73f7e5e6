"""Are the files of an export there, and long enough for what the graph and the index say?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from servingrepo.savedmodel.bundle import BadIndex, BundleIndex, read_index, shard_name
from servingrepo.savedmodel.reading import Unreadable, file_size, read_bounded
from servingrepo.savedmodel.values import Defect
from servingrepo.savedmodel.wording import plural, some

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from servingrepo.savedmodel.restoring import Assets, Needs

__all__ = ["INDEX_LIMIT", "find_asset_defects", "find_variable_defects", "layout_defect"]

INDEX_LIMIT = 256 << 20
"""An index has about 100 bytes per tensor; this one would have millions."""

_AGAIN = "export the model again, or copy it again from where it is whole"
_SHARD = re.compile(r"variables\.data-[0-9]{5}-of-([0-9]{5})")


def layout_defect(path: Path) -> Defect | None:
    """Say what a directory is that holds no SavedModel, or return None if it holds one."""
    try:
        names = {one.name for one in path.iterdir()}
    except OSError as error:
        return Defect(
            slug="no-directory",
            kind="missing",
            message=f"it cannot be read as a directory: {error.strerror or error}",
            hint="give the directory that holds saved_model.pb",
        )
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


def find_asset_defects(path: Path, assets: Assets) -> tuple[tuple[Defect, ...], tuple[str, ...]]:
    """Return what is wrong with the files that the graph names in `assets/`, and notes on unread ones."""
    names = (*assets.read, *assets.unread)
    outside = [name for name in names if name.startswith("/") or ".." in name.split("/")]
    missing = [
        name for name in names if name not in outside and file_size(path / "assets" / name) is None
    ]
    defects = []
    if outside:
        defects.append(
            Defect(
                slug="asset-outside",
                kind="damaged",
                message=f"the graph names assets outside of assets/: {some(outside)}",
                hint="do not serve an export from a source that you do not trust",
            )
        )
    needed = [f"assets/{name}" for name in missing if name in assets.read]
    if needed:
        defects.append(
            Defect(
                slug="asset-missing",
                kind="damaged",
                message=f"{plural(len(needed), 'file is', 'files are')} missing that the graph reads: "
                f"{some(needed)}",
                hint=_AGAIN,
            )
        )
    unread = [f"assets/{name}" for name in missing if name in assets.unread]
    notes = (f"the graph names, but does not read, missing files: {some(unread)}",)
    return tuple(defects), notes if unread else ()


def find_variable_defects(path: Path, needs: Needs) -> tuple[tuple[Defect, ...], tuple[str, ...]]:
    """Return what is wrong with `variables/`, and notes on what was not checked."""
    folder = path / "variables"
    try:
        data = read_bounded(folder / "variables.index", limit=INDEX_LIMIT)
    except Unreadable as error:
        if not error.missing:
            return (_index_defect(str(error)),), ()
        return _without_index(folder, needs), ()
    try:
        index = read_index(data)
    except BadIndex as error:
        # The names of the data files still tell whether one of them is missing.
        return (_index_defect(str(error)), *_missing(folder, _promised(folder))), ()
    notes = (
        ()
        if index.checksums_checked
        else ("the checksums of variables.index are not checked: it is larger than 8 MiB",)
    )
    return (*_shards(folder, index), *_names(index, needs)), notes


def _without_index(folder: Path, needs: Needs) -> tuple[Defect, ...]:
    if not needs.needed:
        return ()
    missing = "variables/variables.index" if folder.is_dir() else "variables/"
    return (
        Defect(
            slug="variables-missing",
            kind="damaged",
            message=f"the graph restores variables, but {missing} is missing: a server would load "
            "it, say AVAILABLE and fail every request",
            hint=_AGAIN,
        ),
    )


def _index_defect(reason: str) -> Defect:
    return Defect(
        slug="variables-index",
        kind="damaged",
        message=f"variables/variables.index cannot be read: {reason}",
        hint=_AGAIN,
    )


def _shards(folder: Path, index: BundleIndex) -> tuple[Defect, ...]:
    names = [shard_name(shard, index.num_shards) for shard in range(index.num_shards)]
    defects = list(_missing(folder, names))
    short = []
    for shard, needed in sorted(index.shard_bytes.items()):
        name = shard_name(shard, index.num_shards)
        size = file_size(folder / name)
        if size is not None and size < needed:
            short.append(f"variables/{name} has {size} bytes of at least {needed}")
    if short:
        defects.append(
            Defect(
                slug="shard-truncated",
                kind="damaged",
                message=f"{plural(len(short), 'data file is', 'data files are')} cut short: {some(short)}",
                hint=_AGAIN,
            )
        )
    return tuple(defects)


def _promised(folder: Path) -> list[str]:
    """Return the data files that the names of those in the folder promise: all NNNNN of NNNNN."""
    try:
        found = [match for one in folder.iterdir() if (match := _SHARD.fullmatch(one.name))]
    except OSError:
        return []
    totals = {int(match[1]) for match in found}
    return [shard_name(shard, total) for total in sorted(totals) for shard in range(total)]


def _missing(folder: Path, names: Iterable[str]) -> tuple[Defect, ...]:
    missing = [f"variables/{name}" for name in names if file_size(folder / name) is None]
    if not missing:
        return ()
    return (
        Defect(
            slug="shard-missing",
            kind="damaged",
            message=f"{plural(len(missing), 'data file is', 'data files are')} missing: {some(missing)}",
            hint=_AGAIN,
        ),
    )


def _names(index: BundleIndex, needs: Needs) -> tuple[Defect, ...]:
    missing = sorted(needs.names - index.names)
    if not missing:
        return ()
    what = plural(len(missing), "variable of the graph is", "variables of the graph are")
    return (
        Defect(
            slug="variables-incomplete",
            kind="damaged",
            message=f"{what} not in variables/variables.index: {some(missing)}",
            hint="the index belongs to another export: copy graph and variables from one",
        ),
    )
