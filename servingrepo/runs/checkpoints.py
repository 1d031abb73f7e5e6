"""Recognize TensorFlow checkpoints: they have variables but no graph, so they cannot be served."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from servingrepo.runs.listing import read_start, size_of, written
from servingrepo.runs.values import Other

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.runs.listing import Folder

__all__ = ["recognise"]

_STATE = "checkpoint"
_SHARD = re.compile(r"(?P<prefix>.+)\.data-[0-9]{5}-of-[0-9]{5}")
_LATEST = re.compile(rb'^model_checkpoint_path: "(?P<path>[^"\n]*)"', re.MULTILINE)
_MAX_STATE = 65_536
_MAX_INDEX = 8 << 20
_LISTED = 5
_NUMBERED = re.compile(r"-[0-9]+$")
_DIRECTORIES = {"checkpoints", "ckpts", "checkpoint_dir", "training_checkpoints"}


def recognise(folder: Folder) -> Iterator[Other]:
    """Yield the folder's checkpoints as one finding that names the latest checkpoint.

    The latest is the one that the file `checkpoint` names, as for tf.train.latest_checkpoint. Without that file it is
    the one whose index was written last.
    """
    shards = (_SHARD.fullmatch(name) for name in folder.files if ".data-" in name)
    with_data = {shard["prefix"] for shard in shards if shard is not None}
    prefixes = {prefix for prefix in with_data if f"{prefix}.index" in folder.files}
    if not prefixes:
        return
    times = {each: written(folder.files[f"{each}.index"]) for each in prefixes}
    latest = _latest(folder)
    if latest is None or latest not in prefixes:
        latest = max(sorted(prefixes), key=times.__getitem__)
    by_estimator = "graph.pbtxt" in folder.files and f"{latest}.meta" in folder.files
    yield Other(
        kind="estimator-checkpoint" if by_estimator else "tf-checkpoint",
        path=folder.below(latest),
        note="the latest checkpoint of a tf.estimator: variables only"
        if by_estimator
        else "the latest TensorFlow checkpoint: variables only",
        count=len(prefixes),
        details=_details(folder, latest, times),
    )


def _details(folder: Folder, latest: str, times: dict[str, float]) -> str:
    """Say whether the latest is whole by its index and sizes, list the others, and say if it seems misplaced."""
    said = [_verified(folder, latest)]
    if len(times) > 1:
        newest = sorted(times, key=lambda each: (times[each], each))
        others = [name for name in newest if name != latest]
        more = f" and {len(others) - _LISTED} older" if len(others) > _LISTED else ""
        said.append(f"also {', '.join(others[-_LISTED:])}{more}")
    directory = _NUMBERED.sub("", latest)
    if directory in folder.folders or directory in _DIRECTORIES:
        said.append(
            f"it lies beside {directory}/, not in it: the prefix given to save was the directory, "
            f"and {directory}/ckpt would be in it"
        )
    return "; ".join(said)


def _verified(folder: Folder, prefix: str) -> str:
    """Compare the index with the sizes of the data files, without reading tensors."""
    from servingrepo.savedmodel.bundle import BadIndex, read_index

    data = read_start(folder.files[f"{prefix}.index"], _MAX_INDEX + 1)
    if len(data) > _MAX_INDEX:
        return f"not checked: its index has more than {_MAX_INDEX:,} bytes"
    try:
        index = read_index(data)
    except BadIndex as error:
        return f"damaged: its index cannot be read: {error}"
    wrong = []
    for shard, size in sorted(index.shard_bytes.items()):
        name = f"{prefix}.data-{shard:05d}-of-{index.num_shards:05d}"
        if name not in folder.files:
            wrong.append(f"{name} is missing")
        elif (found := size_of(folder.files[name])) < size:
            wrong.append(f"{name} has {found:,} bytes where {size:,} are needed")
    if wrong:
        return f"damaged: {', '.join(wrong[:_LISTED])}"
    return f"{len(index.names):,} tensors, all there by name and size"


def _latest(folder: Folder) -> str | None:
    """Return the name in the state file. The path before it may be one of another machine, so it is dropped."""
    if _STATE not in folder.files:
        return None
    match = _LATEST.search(read_start(folder.files[_STATE], _MAX_STATE))
    if match is None:
        return None
    return match["path"].decode("utf-8", "surrogateescape").rpartition("/")[2]
