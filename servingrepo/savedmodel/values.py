"""Values that describe an export; msgspec can write and read them.

Records of versions hold them, so importing this module costs nothing: no message classes, no hashes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "Defect",
    "Demands",
    "Effect",
    "EffectKind",
    "ExampleInput",
    "Feature",
    "FeatureKind",
    "FieldVerdict",
    "Fingerprint",
    "FingerprintField",
    "Signature",
    "TensorCheck",
    "TensorDamage",
    "TensorSpec",
    "Warmup",
]

DefectKind = Literal["missing", "damaged", "unsupported"]
"""No SavedModel at all; one whose files are broken; or a whole one that no server on CPUs can serve."""
FieldVerdict = Literal["matches", "differs", "absent", "cannot verify", "not checked"]
"""`cannot verify`: an unknown version of the code wrote it; `not checked`: an older servingrepo did not check."""
FeatureKind = Literal["dense", "sparse", "ragged"]
EffectKind = Literal["file", "network", "process"]

_AGAIN = "export the model again, or copy it again from where it is whole"


class Defect(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a server cannot serve an export; the message is about the export, without its path."""

    slug: str
    kind: DefectKind
    message: str
    hint: str


def damaged(slug: str, message: str, *, hint: str = _AGAIN) -> Defect:
    """Return a defect of an export that is not what was saved."""
    return Defect(slug=slug, kind="damaged", message=message, hint=hint)


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output: `shape` has None for a free dimension and is None for an unknown rank.

    `default` is the value of an input that may be left out, as text for people; of a long one a digest. Records
    of earlier versions have none.
    """

    alias: str
    dtype: str
    shape: tuple[int | None, ...] | None
    tensor_name: str
    has_default: bool = False
    default: str = ""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """One SignatureDef; inputs and outputs are sorted by alias."""

    key: str
    method_name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of a tf.Example.

    `shape` is that of one example's dense feature, with None first where its length is free; it is None for
    sparse and ragged ones. `has_default` means that an example may leave it out.
    """

    key: str
    dtype: str
    kind: FeatureKind
    shape: tuple[int | None, ...] | None
    has_default: bool


class ExampleInput(msgspec.Struct, frozen=True, kw_only=True):
    """A signature's input that takes serialized tf.Examples; `single` if it takes one, not a vector."""

    signature: str
    alias: str
    single: bool
    features: tuple[Feature, ...]


class FingerprintField(msgspec.Struct, frozen=True, kw_only=True):
    """One hash: what the file says, what was computed (None if it was not), and the verdict."""

    name: str
    stored: int
    computed: int | None
    verdict: FieldVerdict


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """The content of fingerprint.pb; `uuid` is random for each save and empty in files before TF 2.15."""

    producer: int
    uuid: str
    fields: tuple[FingerprintField, ...]

    def field(self, name: str) -> FingerprintField:
        """Return one of the five hashes by name."""
        return next(one for one in self.fields if one.name == name)


class TensorDamage(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor whose bytes are not those that were written; `file` is relative to the export."""

    tensor: str
    dtype: str
    file: str
    offset: int
    size: int
    reason: str

    def __str__(self) -> str:
        where = f"{self.size} bytes at offset {self.offset} of {self.file}"
        return f"tensor {self.tensor} ({self.dtype}, {where}): {self.reason}"


class TensorCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check of all tensors.

    Attributes:
        tensors: How many tensors and slices the index has.
        checked: How many of them were compared with their checksums, or found damaged without that.
        size: Bytes that were compared.
        damaged: Those that differ, the first hundred.
        damaged_count: How many differ.
        unreferenced: Bytes that belong to no tensor, by data file: padding, or left by something else.
    """

    tensors: int
    checked: int
    size: int
    damaged: tuple[TensorDamage, ...]
    damaged_count: int
    unreferenced: dict[str, int]

    @property
    def complete(self) -> bool:
        """Whether every tensor was compared with its checksum, and none differs."""
        return self.checked == self.tensors and not self.damaged_count

    def defects(self) -> tuple[Defect, ...]:
        """Return a defect for each damaged tensor, and one for those beyond the first hundred."""
        hint = "copy the export again from where it is whole, or export the model again"
        found = [damaged("tensor-damaged", str(one), hint=hint) for one in self.damaged]
        more = self.damaged_count - len(self.damaged)
        if more:
            message = f"{more} more tensors are not as variables.index says"
            found.append(damaged("tensor-damaged", message, hint=hint))
        return tuple(found)


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that reaches beyond the graph, and the nodes that are one: `function/node`, or `node`.

    `files` are the paths that stand in the graph itself. They are on the machine that made the export.
    """

    op: str
    kind: EffectKind
    nodes: tuple[str, ...]
    files: tuple[str, ...] = ()


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """The demands of one MetaGraph on a server.

    Attributes:
        producer: GraphDef.versions.producer: the TF_GRAPH_DEF_VERSION of what wrote it; 0 if it does not say.
        min_consumer: The lowest TF_GRAPH_DEF_VERSION that may read it.
        ops: Operations of the main graph, which is placed as a whole when it is loaded.
        function_ops: Operations that only functions have which the main graph can reach.
        custom: Those of both that no known TensorFlow Serving has, in any version.
        effects: Operations that touch files, the network or processes.
        state: Operations by which a request changes what later requests find.
    """

    producer: int = 0
    min_consumer: int = 0
    ops: tuple[str, ...] = ()
    function_ops: tuple[str, ...] = ()
    custom: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    state: tuple[str, ...] = ()


class Warmup(msgspec.Struct, frozen=True, kw_only=True):
    """A warm-up file: how many records were read, and which models they were written for."""

    records: int
    models: tuple[str, ...]
