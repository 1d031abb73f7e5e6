"""Inspect one export: what it promises, and everything that is wrong with it, as values.

Inspecting raises nothing for what is wrong with an export; `refuse_defects` does. Nothing here writes or starts
TensorFlow. The behaviour of TensorFlow Serving is from tensorflow/cc/saved_model/{loader,reader}.cc, and was tried on
a server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
from blake3 import blake3
from google.protobuf.message import DecodeError

from servingrepo.errors import (
    DamagedExport,
    NoSavedModel,
    ServingRepoError,
    UnsafeExport,
    UnsupportedExport,
)
from servingrepo.protos import graph_pb2, saved_model_pb2
from servingrepo.savedmodel.demands import demands_of, find_unplaceable
from servingrepo.savedmodel.files import (
    find_asset_defects,
    layout_defect_of,
    top_names,
    transport_defect,
)
from servingrepo.savedmodel.fingerprint import fingerprint_defects, read_fingerprint
from servingrepo.savedmodel.graph import GraphReader, example_inputs
from servingrepo.savedmodel.reading import ExportFiles, Unreadable, files_of
from servingrepo.savedmodel.restoring import named_assets, needs_variables
from servingrepo.savedmodel.signatures import dtype_name, signatures_from, uncallable
from servingrepo.savedmodel.values import (
    Defect,
    Demands,
    ExampleInput,
    Fingerprint,
    Signature,
    Warmup,
    damaged,
)
from servingrepo.savedmodel.variables import Variables, find_variable_defects, read_variables
from servingrepo.savedmodel.warmup import FILE as WARMUP
from servingrepo.savedmodel.warmup import check_warmup
from servingrepo.storage.beneath import open_beneath
from servingrepo.storage.disk import storage_errors
from servingrepo.texts import plural, some

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Inspection", "inspect_export", "refuse_defects"]

SERVE = frozenset({"serve"})
GRAPH_LIMIT = (2 << 30) - 1
"""protobuf's own limit for one message, in bytes."""
TEXT_LIMIT = 256 << 20


_FIRST_NODE = b"\x0a"  # field 1, length-delimited
_FROZEN = Defect(
    slug="frozen-graph",
    kind="unsupported",
    message="saved_model.pb is a frozen graph (a GraphDef), not a SavedModel: a server cannot read it",
    hint="make a SavedModel of it: import it with tf.graph_util.import_graph_def in tf.compat.v1.wrap_function, prune"
    " that to its inputs and outputs, and give it to tf.saved_model.save(module, path, signatures=…)",
)


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """The result of inspecting one export.

    Attributes:
        path: The directory, as given.
        file: `saved_model.pb` or `saved_model.pbtxt`, whichever a server reads; empty if there is none.
        digest: blake3 of the bytes that were read from it, in hex; empty if none were.
        size: How many bytes these were.
        tags: The tag set that was inspected; empty if the export has none that is exactly {serve}.
        tag_sets: The tag sets of all its MetaGraphs.
        tensorflow_version: The TensorFlow that wrote it, in its own words.
        signatures: What clients can call, sorted by key.
        examples: Inputs that take serialized tf.Examples, with their features.
        assets: Files of `assets/` that the graph names.
        needs_variables: Whether requests will need what is in `variables/`.
        demands: What the graph asks of a server; None where no graph could be read.
        warmup: The warm-up file that servers replay, None without one.
        fingerprint: The content of fingerprint.pb, None without a readable one.
        defects: Why a server cannot serve it; empty for a good export.
        notes: Things worth knowing that keep no server from serving it.
    """

    path: str
    file: str = ""
    digest: str = ""
    size: int = 0
    tags: tuple[str, ...] = ()
    tag_sets: tuple[tuple[str, ...], ...] = ()
    tensorflow_version: str = ""
    signatures: tuple[Signature, ...] = ()
    examples: tuple[ExampleInput, ...] = ()
    assets: tuple[str, ...] = ()
    needs_variables: bool = False
    demands: Demands | None = None
    warmup: Warmup | None = None
    fingerprint: Fingerprint | None = None
    defects: tuple[Defect, ...] = ()
    notes: tuple[str, ...] = ()

    def signature(self, key: str) -> Signature | None:
        """Return the signature of that key, or None."""
        return next((one for one in self.signatures if one.key == key), None)

    def example_input(self, signature: str, alias: str) -> ExampleInput | None:
        """Return what an input's tf.Examples hold, or None if it takes none."""
        return next(
            (one for one in self.examples if (one.signature, one.alias) == (signature, alias)), None
        )


def inspect_export(
    path: Path, *, boundary: Path | None = None, variables: Variables | None = None
) -> Inspection:
    """Read one export and return what it is and what is wrong with it.

    The graph, the index of the variables and fingerprint.pb are read; of data files and assets only that
    they are there, and their sizes.

    Args:
        path: The export.
        boundary: What its links may not leave: the run that it is in, by default the export itself.
        variables: Spares reading the index again.
    """
    files = files_of(path, boundary=boundary)
    names = top_names(files)
    if isinstance(names, Defect):
        return Inspection(path=str(path), defects=(names,))
    wrong = layout_defect_of(names)
    if wrong is not None:
        return Inspection(path=str(path), defects=(wrong,))
    # A link to nowhere is there, too: it is the one that a server would try to read.
    binary = "saved_model.pb" in names
    name = "saved_model.pb" if binary else "saved_model.pbtxt"
    wrong = transport_defect(files, names, (name, "variables/variables.index", WARMUP))
    if wrong is not None:
        return Inspection(path=str(path), file=name, defects=(wrong,))
    try:
        data = files.read(name, limit=GRAPH_LIMIT if binary else TEXT_LIMIT)
    except Unreadable as error:
        return Inspection(path=str(path), file=name, defects=(_damaged(name, str(error)),))
    found = Inspection(path=str(path), file=name, digest=blake3(data).hexdigest(), size=len(data))
    if binary and _is_graph(data):
        return msgspec.structs.replace(found, defects=(_FROZEN,))
    try:
        message = _parse(name, data)
    except ValueError as error:
        return msgspec.structs.replace(found, defects=(_damaged(name, str(error)),))
    return _inspect_message(
        files,
        message,
        found,
        saved_model=data if binary else b"",
        variables=variables if variables is not None else read_variables(path, boundary=boundary),
    )


def refuse_defects(inspection: Inspection, export: Path) -> None:
    """Refuse an export that is known to be bad before any server starts, with all that is wrong.

    Raises:
        NoSavedModel, DamagedExport, UnsupportedExport, UnsafeExport: By the worst defect.
    """
    if not inspection.defects:
        return
    with storage_errors("read", export):
        for name in ("saved_model.pb", "saved_model.pbtxt", "variables/variables.index"):
            try:
                os.close(open_beneath(f"{export}/{name}", os.path.realpath(export)))
            except PermissionError:
                raise
            except OSError:
                continue  # that is among the defects
    kinds: dict[str, type[ServingRepoError]] = {
        "missing": NoSavedModel,
        "damaged": DamagedExport,
        "unsupported": UnsupportedExport,
        "unsafe": UnsafeExport,
    }
    worst = inspection.defects[0]
    lines = [f"{defect.slug}: {defect.message}" for defect in inspection.defects]
    raise kinds.get(worst.kind, DamagedExport)(
        f"{export} cannot be promoted: {worst.message}",
        problems=lines if len(lines) > 1 else (),
        hint=worst.hint,
        details={"defects": [defect.slug for defect in inspection.defects]},
    )


def _inspect_message(
    files: ExportFiles, message: Any, found: Inspection, *, saved_model: bytes, variables: Variables
) -> Inspection:
    fingerprint, notes = _fingerprint(files, message, saved_model, variables)
    tag_sets = tuple(tuple(sorted(one.meta_info_def.tags)) for one in message.meta_graphs)
    found = msgspec.structs.replace(found, tag_sets=tag_sets, fingerprint=fingerprint)
    meta_graph = next(
        (one for one in message.meta_graphs if set(one.meta_info_def.tags) == SERVE), None
    )
    if meta_graph is None:
        listed = ", ".join("{" + ", ".join(tags) + "}" for tags in tag_sets[:10])
        defect = Defect(
            slug="no-serve-tag",
            kind="unsupported",
            message=f"no MetaGraph has exactly the tag set {{serve}}; there is {listed}",
            hint="export the model for serving: with tf.saved_model.save, or with the tag serve",
        )
        wrong = (defect, *fingerprint_defects(fingerprint))
        return msgspec.structs.replace(found, defects=wrong, notes=notes)
    reader = GraphReader(meta_graph.graph_def)
    needs = needs_variables(meta_graph, reader)
    assets = named_assets(meta_graph, reader)
    variable_defects, variable_notes = find_variable_defects(files, needs, variables)
    asset_defects, asset_notes = find_asset_defects(files, assets)
    placement_defects, placement_notes = _placement(reader)
    signatures = signatures_from(meta_graph.signature_def)
    fed = _fed_dtypes(signatures, reader)
    warmup = check_warmup(files, signatures=signatures, fed=fed)
    missing = any(one.slug == "variables-missing" for one in variable_defects)
    wrong = fingerprint_defects(fingerprint, variables_missing=missing)
    notes = (*notes, *variable_notes, *asset_notes, *placement_notes)
    notes = (*notes, *_dtype_notes(signatures, fed), *warmup.notes)
    demands = demands_of(meta_graph, reader)
    examples = example_inputs(reader, meta_graph.signature_def)
    if reader.gave_up:
        said = (
            "which inputs take tf.Examples was not followed to the end: there is too much to follow"
        )
        notes = (*notes, said)
    defects = (*variable_defects, *asset_defects, *placement_defects, *warmup.defects, *wrong)
    defects = (*defects, *uncallable(meta_graph.signature_def))
    return msgspec.structs.replace(
        found,
        tags=tuple(sorted(SERVE)),
        tensorflow_version=meta_graph.meta_info_def.tensorflow_version,
        signatures=signatures,
        examples=examples,
        assets=tuple(sorted((*assets.read, *assets.unread))),
        needs_variables=needs.needed,
        demands=demands,
        warmup=warmup.warmup,
        defects=defects,
        notes=notes,
    )


def _is_graph(data: bytes) -> bool:
    """Tell whether bytes are a GraphDef, as freezing a graph writes it.

    A SavedModel begins with its schema's version, a number (saved_model.proto); a GraphDef with a node, a message
    whose first field is the node's name (node_def.proto).
    """
    if data[:1] != _FIRST_NODE:
        return False
    graph = graph_pb2.GraphDef()
    try:
        graph.ParseFromString(data)
    except DecodeError:
        return False
    return bool(graph.node) and all(one.name and one.op for one in graph.node)


def _parse(name: str, data: bytes) -> Any:
    """Return the SavedModel message of a file's bytes, or raise ValueError with what is wrong."""
    if not data:
        raise ValueError("it is empty")
    message = saved_model_pb2.SavedModel()
    if name == "saved_model.pb":
        try:
            message.ParseFromString(data)
        except DecodeError as error:
            raise ValueError("it is no SavedModel message: truncated, or something else") from error
    else:
        _parse_text(data, message)
    if not message.meta_graphs:
        raise ValueError("it holds no MetaGraph: truncated, or something else")
    return message


def _parse_text(data: bytes, message: Any) -> None:
    from servingrepo import textproto  # few graphs are text

    try:
        textproto.parse(data.decode(errors="surrogateescape"), message)
    except textproto.BadText as error:
        raise ValueError(f"it is no SavedModel in text form: {error.mistakes[0]}") from error


def _damaged(name: str, reason: str) -> Defect:
    return damaged("unreadable-graph", f"{name} cannot be read: {reason}")


def _fingerprint(
    files: ExportFiles, message: Any, saved_model: bytes, variables: Variables
) -> tuple[Fingerprint | None, tuple[str, ...]]:
    try:
        data = files.read("fingerprint.pb", limit=1 << 20)
    except Unreadable as error:
        return None, () if error.missing else (f"fingerprint.pb is not used: {error}",)
    if variables.data is None and variables.problem:
        return None, (f"fingerprint.pb is not used: variables.index: {variables.problem}",)
    try:
        found = read_fingerprint(
            data, saved_model=saved_model, message=message, index=variables.data
        )
    except ValueError as error:
        return None, (f"{error}; servers do not read it",)
    return found, ()


def _placement(reader: GraphReader) -> tuple[tuple[Defect, ...], tuple[str, ...]]:
    found = find_unplaceable(reader)
    defects = tuple(
        Defect(
            slug=slug,
            kind="unsupported",
            message=f"{plural(len(names), 'operation is', 'operations are')} {text}: {some(names)}",
            hint=hint,
        )
        for slug, (text, hint) in _UNPLACEABLE.items()
        if (names := found.get(slug))
    )
    movable = found.get("movable")
    if not movable:
        return defects, ()
    count = plural(len(movable), "operation asks", "operations ask")
    moved = f"{count} for a GPU in functions that let TensorFlow move them to a CPU"
    return defects, (f"{moved}: {some(movable)}",)


_UNPLACEABLE = {
    "gpu-pinned": (
        "pinned to a device that a server on CPUs does not have",
        "export it without device scopes, or with clear_devices=True",
    ),
    "tensorrt": (
        "compiled by TensorRT, which needs a GPU",
        "promote the model as it was before its conversion by TensorRT",
    ),
    "mkl": (
        "from a graph that was rewritten for MKL",
        "export the graph as it was before it was rewritten",
    ),
    "python-op": (
        "calling Python (tf.py_function), which no server has",
        "replace tf.py_function and tf.numpy_function by TensorFlow operations",
    ),
    "removed-op": (
        "without a kernel in today's TensorFlow, which dropped boosted trees and tensor forests",
        "train the model anew, for instance with TensorFlow Decision Forests",
    ),
}
"""What is wrong with the operations of each slug, and what to do."""


def _fed_dtypes(
    signatures: tuple[Signature, ...], reader: GraphReader
) -> dict[tuple[str, str], str]:
    """Return the dtypes of the placeholders behind inputs, by signature and alias."""
    found = {}
    for signature in signatures:
        for spec in signature.inputs:
            node = reader.main.nodes.get(spec.tensor_name.split(":")[0])
            if node is not None and node.op.startswith("Placeholder"):
                found[signature.key, spec.alias] = dtype_name(node.attr["dtype"].type)
    return found


def _dtype_notes(
    signatures: tuple[Signature, ...], fed: dict[tuple[str, str], str]
) -> tuple[str, ...]:
    """Note inputs whose placeholder wants another dtype than the signature says."""
    notes = []
    for signature in signatures:
        for spec in signature.inputs:
            real = fed.get((signature.key, spec.alias), spec.dtype)
            if real != spec.dtype:
                says = f"signature {signature.key} says that input {spec.alias} is {spec.dtype}"
                notes.append(f"{says}, but the graph wants {real}")
    return tuple(notes)
