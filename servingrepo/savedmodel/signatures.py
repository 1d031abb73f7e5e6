"""Signatures of a SavedModel: SignatureDefs as plain values.

A reference dtype such as float_ref, which TensorFlow 1 wrote for variables, is reduced to its base: that is
what a server accepts and sends. Everything here can be encoded by msgspec.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from servingrepo.protos import types_pb2
from servingrepo.savedmodel.values import Defect, Signature, TensorSpec
from servingrepo.texts import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "INIT_OP_KEY",
    "dtype_name",
    "dtype_number",
    "shape_from",
    "signatures_from",
    "texts_of",
    "uncallable",
]

INIT_OP_KEY = "__saved_model_init_op"
"""The key under which TensorFlow 2 keeps its initialisation op: no signature that anybody can call."""

_SHORT_VALUE = 200
"""Bytes of the longest default that is shown as it is."""

_REF = 100  # types.proto: DT_FLOAT_REF = DT_FLOAT + 100
_PYTHON_NAMES = {"float": "float32", "double": "float64", "half": "float16"}
_PROTO_NAMES = {python: proto for proto, python in _PYTHON_NAMES.items()}


def signatures_from(definitions: Mapping[str, Any]) -> tuple[Signature, ...]:
    """Return the servable signatures of a map of SignatureDef messages, sorted by key.

    It serves both what lies on disk and what GetModelMetadata returns, so that the two can be compared.
    """
    return tuple(
        Signature(
            key=key,
            method_name=definitions[key].method_name,
            inputs=_specs(definitions[key].inputs, definitions[key].defaults),
            outputs=_specs(definitions[key].outputs, {}),
        )
        for key in sorted(definitions)
        if key != INIT_OP_KEY
    )


def uncallable(definitions: Mapping[str, Any]) -> tuple[Defect, ...]:
    """Return why clients cannot call the signatures of a map of SignatureDef messages; empty if they can.

    A server feeds and fetches the tensor that a TensorInfo names. What is made of several tensors has no name there
    (meta_graph.proto, TensorInfo.encoding), and every request fails: `FetchOutputs node : not found`.
    """
    keys = sorted(key for key in definitions if key != INIT_OP_KEY)
    if not keys:
        return (
            Defect(
                slug="no-signature",
                kind="unsupported",
                message="it has no signature that a client can call",
                hint="save it with signatures=: tf.saved_model.save(model, path, signatures=model.serve)",
            ),
        )
    made_of_parts = [
        (f"{what} {alias} of signature {key}", encoding)
        for key in keys
        for what, infos in (
            ("input", definitions[key].inputs),
            ("output", definitions[key].outputs),
        )
        for alias in sorted(infos)
        if (encoding := infos[alias].WhichOneof("encoding")) in _PARTS
    ]
    return tuple(
        Defect(
            slug=slug,
            kind="unsupported",
            message=f"{some(names)} {'is' if len(names) == 1 else 'are'} {kind}: a server serves plain tensors only",
            hint=f"list its parts as tensors of their own in the signature: {parts}",
        )
        for encoding, (slug, kind, parts) in _PARTS.items()
        if (names := [name for name, one in made_of_parts if one == encoding])
    )


_PARTS = {
    "coo_sparse": ("sparse-tensor", "sparse", "indices, values and dense_shape"),
    "composite_tensor": (
        "composite-tensor",
        "ragged or otherwise composite",
        "flat_values and row_splits of a ragged one; indices, values and dense_shape of a sparse one",
    ),
}
"""Encodings of a TensorInfo that no server can feed or fetch: slug, what it is, what to list instead."""


@lru_cache(maxsize=256)
def dtype_name(number: int) -> str:
    """Return a DataType's name as Python users know it: float32, int64, string, bool; refs reduced."""
    base = number - _REF if number > _REF else number
    try:
        name: str = types_pb2.DataType.Name(base).removeprefix("DT_").lower()
    except ValueError:
        return f"dtype-{number}"
    return _PYTHON_NAMES.get(name, name)


@lru_cache(maxsize=256)
def dtype_number(name: str) -> int:
    """Return the DataType of a name that `dtype_name` gave.

    Raises:
        ValueError: There is no such dtype.
    """
    number: int = types_pb2.DataType.Value("DT_" + _PROTO_NAMES.get(name, name).upper())
    return number


def shape_from(message: Any) -> tuple[int | None, ...] | None:
    """Return a TensorShapeProto as a value."""
    if message.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in message.dim)


def texts_of(values: Iterable[bytes]) -> list[str]:
    """Return the strings of a tensor or attribute as text; bytes that are not UTF-8 become escapes."""
    return [one.decode("utf-8", "backslashreplace") for one in values]


def _specs(infos: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            alias=alias,
            dtype=dtype_name(info.dtype),
            # Not set at all is not the same as set to a scalar: old exporters left it out.
            shape=shape_from(info.tensor_shape) if info.HasField("tensor_shape") else None,
            tensor_name=info.name,
            has_default=alias in defaults,
            default=_value_text(defaults[alias]) if alias in defaults else "",
        )
        for alias, info in sorted(infos.items())
    )


def _value_text(tensor: Any) -> str:
    """Return a TensorProto for people: its values if they are few, else a digest of its bytes.

    A signature's default may be a whole vocabulary, and comes from files that others wrote.
    """
    if tensor.ByteSize() <= _SHORT_VALUE and not tensor.tensor_content:
        for field, value in tensor.ListFields():
            if field.name == "string_val":
                return ", ".join(texts_of(value))
            if field.name.endswith("_val") and field.message_type is None:
                return ", ".join(str(one) for one in value)
    return f"blake3:{blake3(tensor.SerializeToString(deterministic=True)).hexdigest()[:16]}"
