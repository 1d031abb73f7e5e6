"""`variables/` of an export: its index read once for all who need it, and what is wrong with the files there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from servingrepo.savedmodel.bundle import BadIndex, BundleIndex, read_index, shard_name
from servingrepo.savedmodel.reading import ExportFiles, Unreadable, files_of
from servingrepo.savedmodel.tensors import Tensors, misfits
from servingrepo.savedmodel.values import Defect, TensorDamage, damaged
from servingrepo.storage.reading import is_left_by_macos
from servingrepo.texts import plural, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from servingrepo.savedmodel.restoring import Needs

__all__ = ["Variables", "find_variable_defects", "read_variables"]

_INDEX_LIMIT = 64 << 20
"""An index has about 100 bytes per tensor; this one would have more than half a million."""

_MOST = 100
_INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables\.data-[0-9]{5}-of-([0-9]{5})")


class Variables(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of `variables/variables.index`, None where there are none, and what they say.

    `index` is None if it is missing or bad; `problem` then says why, and is empty where it is missing. `misplaced`
    are the tensors whose places cannot be right.
    """

    data: bytes | None = None
    index: BundleIndex | None = None
    problem: str = ""
    misplaced: tuple[TensorDamage, ...] = ()

    def tensors(self) -> Tensors | None:
        """Return the check of every tensor, if there is an index to check them by."""
        return Tensors(self.index, wrong=self.misplaced) if self.index is not None else None


def read_variables(path: Path, *, boundary: Path | None = None) -> Variables:
    """Read the index of an export; see `inspect_export`."""
    try:
        data = files_of(path, boundary=boundary).read(_INDEX, limit=_INDEX_LIMIT)
    except Unreadable as error:
        return Variables(problem="" if error.missing else str(error))
    try:
        index = read_index(data)
    except BadIndex as error:
        return Variables(data=data, problem="it is empty" if not data else str(error))
    return Variables(data=data, index=index, misplaced=misfits(index))


def find_variable_defects(
    files: ExportFiles, needs: Needs, variables: Variables
) -> tuple[tuple[Defect, ...], tuple[str, ...]]:
    """Return what is wrong with `variables/`, and notes on what no server minds."""
    index = variables.index
    if variables.problem:
        # The names of the data files still tell whether one of them is missing.
        message = f"{_INDEX} cannot be read: {variables.problem}"
        return (damaged("variables-index", message), *_missing(files, _promised(files))), ()
    if index is None:
        return tuple(_without_index(files, needs)), ()
    places = tuple(damaged("tensor-misplaced", str(one)) for one in variables.misplaced[:_MOST])
    defects = (*_shards(files, index), *_names(index, needs), *_slices(index), *places)
    return defects, _strangers(files, index)


def _without_index(files: ExportFiles, needs: Needs) -> Iterator[Defect]:
    if not needs.needed:
        return
    missing = _INDEX
    try:
        files.names("variables")
    except OSError:
        missing = "variables/"
    yield damaged(
        "variables-missing",
        f"the graph restores variables, but {missing} is missing: a server would load "
        "it, say AVAILABLE and fail every request",
    )


def _shards(files: ExportFiles, index: BundleIndex) -> Iterator[Defect]:
    yield from _missing(files, index.shards)
    short: list[str] = []
    empty: list[str] = []
    for shard, needed in sorted(index.shard_bytes.items()):
        name = shard_name(shard, index.num_shards)
        size = files.size(f"variables/{name}")
        if size is not None and size < needed:
            says = f"variables/{name} has {size} bytes of at least {needed}"
            (short if size else empty).append(says)
    whiches = (("shard-empty", empty, "empty"), ("shard-truncated", short, "cut short"))
    for slug, which, what in whiches:
        if which:
            they_are = plural(len(which), "data file is", "data files are")
            yield damaged(slug, f"{they_are} {what}: {some(which)}")


def _slices(index: BundleIndex) -> Iterator[Defect]:
    if count := len(index.unsliced):
        what = plural(count, "partitioned variable lacks", "partitioned variables lack")
        yield damaged("slices-missing", f"{what} slices in {_INDEX}: {some(index.unsliced)}")


def _strangers(files: ExportFiles, index: BundleIndex) -> tuple[str, ...]:
    """Note data files that the index does not know: left by another save, and read by nobody."""
    known = {*index.shards, "variables.index"}
    try:
        names = {*files.names("variables")}
    except OSError:
        return ()
    others = sorted(one for one in names - known if not is_left_by_macos(one, names))
    if not others:
        return ()
    return (f"files in variables/ that the index does not name: {some(others)}",)


def _promised(files: ExportFiles) -> list[str]:
    """Return the data files that the names of those in the folder promise: all NNNNN of NNNNN."""
    try:
        found = [match for one in files.names("variables") if (match := _SHARD.fullmatch(one))]
    except OSError:
        return []
    totals = {int(match[1]) for match in found}
    return [shard_name(shard, total) for total in sorted(totals) for shard in range(total)]


def _missing(files: ExportFiles, names: Iterable[str]) -> Iterator[Defect]:
    missing = [path for name in names if files.size(path := f"variables/{name}") is None]
    if missing:
        what = plural(len(missing), "data file is", "data files are")
        yield damaged("shard-missing", f"{what} missing: {some(missing)}")


def _names(index: BundleIndex, needs: Needs) -> Iterator[Defect]:
    if missing := sorted(needs.names - index.names):
        what = plural(len(missing), "variable of the graph is", "variables of the graph are")
        yield damaged(
            "variables-incomplete",
            f"{what} not in {_INDEX}: {some(missing)}",
            hint="the index belongs to another export: copy graph and variables from one",
        )
