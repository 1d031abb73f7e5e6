"""Recognize the files that Keras saves besides SavedModels: `.keras`, HDF5 models, and weights alone.

As in Keras, the suffix and the content say which kind a file is. A few bytes at its start and end are enough, so h5py
and Keras are not needed, and weights are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from servingrepo.runs.listing import read_end, read_start
from servingrepo.runs.values import Other

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.runs.listing import Folder

__all__ = ["HDF5_MAGIC", "ZIP_MAGIC", "places_of_hdf5", "recognise"]

ZIP_MAGIC = b"PK\x03\x04"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_END = b"PK\x05\x06"
_USER_BLOCK = 512
_SUFFIXES = (".keras", ".h5", ".hdf5", ".weights.json")

_MOST_OPENED = 8  # files of one folder; the others are counted by name
_START = 262_144
_END = 65_536

_Kind = Literal["keras-model", "hdf5-model", "keras-weights", "not-what-its-name-says"]
_NOTES: dict[_Kind, str] = {
    "keras-model": "a Keras model (zip with config.json)",
    "hdf5-model": "a whole Keras model in HDF5",
    "keras-weights": "weights of a Keras model, without the model",
    "not-what-its-name-says": "called a Keras file, but it is damaged, something else, or two things at once",
}


def recognise(folder: Folder) -> Iterator[Other]:
    """Yield one finding per kind of Keras file in the folder."""
    found: dict[_Kind, list[str]] = {}
    named = [name for name in folder.files if name.endswith(_SUFFIXES)]
    for number, name in enumerate(named):
        opened = number < _MOST_OPENED
        kind = _kind(name, folder.files[name]) if opened else _kind_by_name(name)
        found.setdefault(kind, []).append(name)
    for kind, names in found.items():
        yield Other(kind=kind, path=folder.below(names[0]), note=_NOTES[kind], count=len(names))


def places_of_hdf5(size: int) -> Iterator[int]:
    """Yield the offsets at which HDF5 may begin in a file of a size. HDF5's libraries skip the bytes before.

    They are 0, or the end of a user block of 512, 1024, 2048… bytes (HDF5 File Format Specification, II.A).
    """
    yield 0
    place = _USER_BLOCK
    while place + len(HDF5_MAGIC) <= size:
        yield place
        place *= 2


def _kind_by_name(name: str) -> _Kind:
    if name.endswith((".weights.h5", ".weights.json")):
        return "keras-weights"
    return "keras-model" if name.endswith(".keras") else "hdf5-model"


def _kind(name: str, path: str) -> _Kind:
    start = read_start(path, _START)
    if name.endswith(".weights.json"):
        return "keras-weights"
    if name.endswith(".keras"):
        # A zip has each name before its member, and all names at its end.
        whole = start.startswith(ZIP_MAGIC) and b"config.json" in start + read_end(path, _END)
        return "keras-model" if whole else "not-what-its-name-says"
    begins = any(start.startswith(HDF5_MAGIC, one) for one in places_of_hdf5(len(start)))
    if not begins or _ZIP_END in read_end(path, _END):
        return "not-what-its-name-says"
    if name.endswith(".weights.h5"):
        return "keras-weights"
    # The root's attribute model_config has the architecture. Keras writes it before the weights.
    whole = b"model_config" in start or b"model_config" in read_end(path, _END)
    return "hdf5-model" if whole else "keras-weights"
