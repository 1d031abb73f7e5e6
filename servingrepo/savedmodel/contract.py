"""A contract: what a model's clients rely on, in TOML that people read and edit.

Only what a contract names is demanded. An input that it does not name must have a default, because clients
that keep to the contract do not send it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from servingrepo.errors import BadContract
from servingrepo.savedmodel.compatibility import (
    Change,
    Comparison,
    compare_shapes,
    comparison,
    say_shape,
    say_spec,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from servingrepo.savedmodel.values import Signature, TensorSpec

__all__ = [
    "CONTRACT_LIMIT",
    "Contract",
    "PinnedSignature",
    "PinnedTensor",
    "check_contract",
    "contract_of",
    "parse_contract",
    "render_contract",
]

SCHEMA = 1
CONTRACT_LIMIT = 16 << 20
"""Bytes of the longest contract that is read."""
_MAX_RANK = 254  # tensor_shape.h: TensorShape::MaxDimensions
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

_HEADER = """\
# The contract of the model {model}: what its clients rely on.
#
# servingrepo promote refuses a version that does not keep it, with all that is wrong, and looks at nothing
# else: what is not named here may change. So take out what no client uses; keep the file where others review
# it. An input that is not named must have a default, because clients do not send it.
#
#   dtype     the exact type
#   shape     at least this must be allowed: -1 is any size, "any" any rank
#   default   true: clients leave this input out
#   method    the API of the signature
#
# Made by: servingrepo contract {model} --write
"""


class PinnedTensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The demands on an input or output; None where there is none."""

    dtype: str | None = None
    shape: tuple[int, ...] | Literal["any"] | None = None
    default: bool = False

    @property
    def free_shape(self) -> tuple[int | None, ...] | None:
        """The shape as specs have it; None is any rank."""
        if self.shape is None or isinstance(self.shape, str):
            return None
        return tuple(None if size < 0 else size for size in self.shape)


class PinnedSignature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The demands on a signature."""

    method: str | None = None
    inputs: dict[str, PinnedTensor] = {}
    outputs: dict[str, PinnedTensor] = {}


class Contract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The demands on a model."""

    schema: int = SCHEMA
    model: str
    signatures: dict[str, PinnedSignature] = {}


def contract_of(model: str, signatures: Iterable[Signature]) -> Contract:
    """Return the contract that demands all that signatures promise."""
    return Contract(
        model=model,
        signatures={
            one.key: PinnedSignature(
                method=one.method_name,
                inputs={spec.alias: _pinned(spec) for spec in one.inputs},
                outputs={spec.alias: _pinned(spec) for spec in one.outputs},
            )
            for one in signatures
        },
    )


def check_contract(contract: Contract, signatures: Iterable[Signature]) -> Comparison:
    """Say in what signatures break a contract. What it does not name counts for nothing."""
    found = {one.key: one for one in signatures}
    return comparison(
        change
        for key, pinned in sorted(contract.signatures.items())
        for change in _check_signature(key, pinned, found.get(key))
    )


def parse_contract(data: bytes, *, source: str) -> Contract:
    """Read a contract.

    Raises:
        BadContract: It is not TOML, or not a contract; the message says where.
    """
    import tomllib

    hint = "correct it by hand, or write it anew: servingrepo contract NAME --write --overwrite"
    try:
        raw: dict[str, Any] = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadContract(f"{source} is not TOML: {str(error)[:300]}", hint=hint) from error
    schema = raw.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise BadContract(
            f"{source} has format {schema}; this servingrepo knows formats up to {SCHEMA}",
            hint="use a newer servingrepo",
        )
    try:
        contract = msgspec.convert(raw, type=Contract)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadContract(f"{source} is not a contract: {str(error)[:300]}", hint=hint) from error
    problems = list(_mistakes(contract))
    if problems:
        raise BadContract(f"{source} is not a contract", problems=problems, hint=hint)
    return contract


def render_contract(contract: Contract) -> str:
    """Return a contract as TOML: commented, sorted, the same text for the same contract."""
    lines = [_HEADER.format(model=contract.model)]
    lines += [f"schema = {contract.schema}", f"model = {_text(contract.model)}"]
    for key, signature in sorted(contract.signatures.items()):
        place = f"signatures.{_key(key)}"
        lines += ["", f"[{place}]"]
        if signature.method is not None:
            lines.append(f"method = {_text(signature.method)}")
        for side, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            for alias, tensor in sorted(tensors.items()):
                lines.append(f"{side}.{_key(alias)} = {_tensor(tensor)}")
    return "\n".join(lines) + "\n"


def _pinned(spec: TensorSpec) -> PinnedTensor:
    if spec.shape is None:
        shape: tuple[int, ...] | Literal["any"] = "any"
    else:
        shape = tuple(-1 if size is None else size for size in spec.shape)
    return PinnedTensor(dtype=spec.dtype, shape=shape, default=spec.has_default)


def _check_signature(
    key: str, pinned: PinnedSignature, found: Signature | None
) -> Iterator[Change]:
    if found is None:
        yield _broken("signature-removed", key, f"signature {key} is missing")
        return
    if pinned.method is not None and pinned.method != found.method_name:
        text = f"signature {key}: its method is {found.method_name or 'none'}, not {pinned.method or 'none'}"
        yield _broken("method-changed", key, text)
    yield from _check_tensors(key, "input", pinned.inputs, found.inputs)
    yield from _check_tensors(key, "output", pinned.outputs, found.outputs)
    for spec in found.inputs if pinned.inputs else ():
        if spec.alias not in pinned.inputs and not spec.has_default:
            text = f"signature {key}: input {spec.alias} ({say_spec(spec)}) is required, and not in the contract"
            yield _broken("input-required", key, text)


def _check_tensors(
    key: str, side: str, pinned: Mapping[str, PinnedTensor], found: Sequence[TensorSpec]
) -> Iterator[Change]:
    specs = {one.alias: one for one in found}
    for alias, wanted in sorted(pinned.items()):
        where = f"signature {key}: {side} {alias}"
        spec = specs.get(alias)
        if spec is None:
            yield _broken(f"{side}-removed", key, f"{where} is missing")
            continue
        if wanted.dtype is not None and wanted.dtype != spec.dtype:
            text = f"{where} is {spec.dtype}, not {wanted.dtype}"
            yield _broken(f"{side}-dtype-changed", key, text)
        if wanted.shape is not None:
            shape = compare_shapes(wanted.free_shape, spec.shape)
            if shape in {"narrowed", "changed"}:
                text = f"{where}: its shape is {say_shape(spec.shape)}, not {say_shape(wanted.free_shape)}"
                yield _broken(f"{side}-shape-{shape}", key, text)
        if wanted.default and not spec.has_default:
            yield _broken("input-lost-default", key, f"{where} has no default")


def _broken(kind: str, key: str, message: str) -> Change:
    return Change(kind=kind, breaking=True, signature=key, message=message)


def _mistakes(contract: Contract) -> Iterator[str]:
    for key, signature in contract.signatures.items():
        for side, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            for alias, tensor in tensors.items():
                where = f"signatures.{key}.{side}.{alias}"
                if isinstance(tensor.shape, tuple) and len(tensor.shape) > _MAX_RANK:
                    yield f"{where}: a tensor has {_MAX_RANK} dimensions at most"
                elif isinstance(tensor.shape, tuple) and min(tensor.shape, default=0) < -1:
                    yield f"{where}: a size is -1 for any, or not negative"
                if tensor.default and side == "outputs":
                    yield f"{where}: only inputs have defaults"


def _tensor(tensor: PinnedTensor) -> str:
    parts = []
    if tensor.dtype is not None:
        parts.append(f"dtype = {_text(tensor.dtype)}")
    if tensor.shape is not None:
        shape = _text(tensor.shape) if isinstance(tensor.shape, str) else str(list(tensor.shape))
        parts.append(f"shape = {shape}")
    if tensor.default:
        parts.append("default = true")
    return "{ " + ", ".join(parts) + " }" if parts else "{}"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    """Return a TOML basic string: JSON's, but DEL must be escaped as well (TOML 1.0, String)."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
