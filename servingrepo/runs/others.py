"""Recognize all that a run has besides SavedModels: other frameworks' files, archives, events, configs, metrics.

A name and, where it is not enough, a few bytes tell the kind. Pickles are never unpickled.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from servingrepo.runs import checkpoints, keras, mlflow, savedmodels
from servingrepo.runs.configuration import CONFIGS
from servingrepo.runs.keras import ZIP_MAGIC
from servingrepo.runs.listing import read_end, read_start
from servingrepo.runs.metric_files import METRICS
from servingrepo.runs.values import Other, OtherKind
from servingrepo.storage.reading import is_git_lfs_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servingrepo.runs.listing import Folder, Listing

__all__ = ["others"]

_MOST_OPENED = 8
_SOME = 65_536
_START = 64
_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch.save before 1.6
_PICKLE = re.compile(rb"\x80[\x02-\x05]", re.DOTALL)
_FLAVOR = re.compile(rb"^  (?P<name>[a-z_]+):", re.MULTILINE)


def others(seen: Listing) -> tuple[Other, ...]:
    """Return what lies in the run besides SavedModels and their parts."""
    found: list[Other] = []
    for whole in seen.folders:
        folder, carried = carried_wrongly(whole)
        found += carried
        found += savedmodels.unservable(folder)
        found += session_bundles(folder)
        found += checkpoints.recognise(folder)
        found += keras.recognise(folder)
        found += by_suffix(folder)
        found += by_name(folder)
        found += mlflow.logged_models(folder)
    for path, target in seen.links_out:
        note = f"a link out of the run or to nothing ({target}), which is not followed"
        found.append(Other(kind="link-out", path=path, note=note))
    note = "a directory that cannot be read, or a network mount, which is not entered"
    found += [Other(kind="unreadable", path=path, note=note) for path in seen.unreadable]
    return tuple(found)


def carried_wrongly(folder: Folder) -> tuple[Folder, list[Other]]:
    """Take the files out of a folder that a copy or clone spoiled; return the folder, and a finding for each kind.

    They are Git LFS pointers, and names with backslashes. In a SavedModel its inspection finds pointers.
    """
    windows = [name for name in folder.files if "\\" in name]
    models = [name for name in folder.files if name.endswith(_MODELS) and "\\" not in name]
    pointers = [
        name
        for name in (models[:_MOST_OPENED] if not folder.is_saved_model else ())
        if is_git_lfs_pointer(read_start(folder.files[name], _START))
    ]
    why = "a name with backslashes where there should be directories, from Windows"
    kinds: tuple[tuple[OtherKind, str, list[str]], ...] = (
        ("git-lfs-pointer", "a Git LFS pointer, not the file itself", pointers),
        ("backslashes", why, windows),
    )
    found = [
        Other(kind=kind, path=folder.below(names[0]), note=note, count=len(names))
        for kind, note, names in kinds
        if names
    ]
    taken = {name for _, _, names in kinds for name in names}
    files = {name: path for name, path in folder.files.items() if name not in taken}
    return msgspec.structs.replace(folder, files=files) if taken else folder, found


def session_bundles(folder: Folder) -> Iterator[Other]:
    """Yield an export in TensorFlow 0.x's format, which has a file export.meta."""
    if "export.meta" in folder.files:
        yield Other(
            kind="session-bundle",
            path=folder.path,
            note="a SessionBundle (export.meta), which TensorFlow Serving no longer loads",
        )


def by_suffix(folder: Folder) -> Iterator[Other]:
    """Yield one finding for each kind of archive, and of model file of other frameworks."""
    found: dict[tuple[OtherKind, str], list[str]] = {}
    count = 0
    for name, path in folder.files.items():
        if not name.endswith(_SUFFIXES):
            continue
        count += 1
        what = _what(name, path if count <= _MOST_OPENED else None)
        if what is not None:
            found.setdefault(what, []).append(name)
    for (kind, note), names in found.items():
        yield Other(kind=kind, path=folder.below(names[0]), note=note, count=len(names))


def by_name(folder: Folder) -> Iterator[Other]:
    """Yield event files, configs, metrics and MLflow's description of a model."""
    if "MLmodel" in folder.files:
        text = read_start(folder.files["MLmodel"], _SOME)
        flavors = (b"\n" + text).partition(b"\nflavors:")[2]
        names = [match["name"].decode() for match in _FLAVOR.finditer(_indented(flavors))]
        note = f"an MLflow model ({', '.join(names) or 'no flavors'})"
        yield Other(kind="mlflow", path=folder.below("MLmodel"), note=note)
    events = [name for name in folder.files if ".tfevents." in name]
    if events:
        note = "TensorBoard events"
        yield Other(kind="events", path=folder.below(events[0]), note=note, count=len(events))
    if folder.is_saved_model:
        return
    for name in folder.files:
        if CONFIGS.fullmatch(name):
            yield Other(kind="config", path=folder.below(name), note="a configuration")
        elif METRICS.fullmatch(name):
            yield Other(kind="metrics", path=folder.below(name), note="metrics")


_PICKLED = ("pt", "pth", "ckpt", "bin", "pkl", "pickle", "joblib")
_BY_SUFFIX: dict[str, tuple[OtherKind, str]] = {
    "safetensors": ("safetensors", "weights of a model of PyTorch or the like, without the model"),
    "tflite": (
        "tflite",
        "a TFLite model, which is made from a SavedModel and cannot be turned back into one",
    ),
    "onnx": ("onnx", "an ONNX model"),
    "pb": ("graph", "a protocol buffer, perhaps a frozen graph, but no SavedModel"),
}
_ARCHIVES = ("tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "tar.zst", "zip")
_SUFFIXES = tuple(f".{suffix}" for suffix in (*_PICKLED, *_BY_SUFFIX, *_ARCHIVES))
_MODELS = (*_SUFFIXES, ".keras", ".h5", ".hdf5", ".data-00000-of-00001", ".index")
"""Suffixes of model files, which are most often the ones in Git LFS."""
_OF_SAVED_MODELS = {
    "saved_model.pb",
    "fingerprint.pb",
    "keras_metadata.pb",
    "saved_model_config.pb",
}
_WRONG: tuple[OtherKind, str] = (
    "not-what-its-name-says",
    "not what its name says: damaged or something else",
)


def _what(name: str, path: str | None) -> tuple[OtherKind, str] | None:
    """Return the kind of a file and its name in words. Without a path only the name decides."""
    if name in _OF_SAVED_MODELS:
        return None
    suffix = name.rpartition(".")[2]
    if suffix in _PICKLED:
        return _pickled(name, path)
    # The FlatBuffers file identifier of TFLite's schema.
    if suffix == "tflite" and path is not None and read_start(path, 8)[4:] != b"TFL3":
        return _WRONG
    return _BY_SUFFIX.get(suffix, ("archive", "an archive"))


def _pickled(name: str, path: str | None) -> tuple[OtherKind, str] | None:
    """Tell PyTorch's files from other pickles, and from files that have the suffix by chance."""
    torch: tuple[OtherKind, str] = ("pytorch", "a PyTorch model or checkpoint")
    if path is None:
        return torch if name.endswith((".pt", ".pth")) else None
    start = read_start(path, _SOME)
    if start.startswith(_TORCH_MAGIC):
        return torch
    if start.startswith(ZIP_MAGIC):
        in_zip = b"/data.pkl" in start or b"/data.pkl" in read_end(path, _SOME)
        return torch if in_zip or name.endswith((".pt", ".pth")) else None
    if _PICKLE.match(start):
        return "pickle", "a Python pickle, which is never opened because that runs code"
    if name.endswith((".pt", ".pth")):
        return _WRONG
    return None


def _indented(text: bytes) -> bytes:
    """Return the indented lines at the begin of a text: one section of a YAML mapping."""
    end = re.search(rb"^[^ \n]", text, re.MULTILINE)
    return text if end is None else text[: end.start()]
