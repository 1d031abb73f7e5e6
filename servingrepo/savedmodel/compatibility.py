"""Compare signatures as clients see them: same, compatible or breaking. Pure: values in, values out.

Inputs are what clients send, outputs what they rely on. TensorFlow Serving holds a request's names against
the signature, and its dtypes against the graph, never its shapes (docs/decisions.md says how each kind of
change was judged, and why).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from servingrepo.savedmodel.values import Signature, TensorSpec

__all__ = [
    "Change",
    "Comparison",
    "Compatibility",
    "compare_shapes",
    "compare_signatures",
    "say_spec",
]

Compatibility = Literal["same", "compatible", "breaking"]
ShapeChange = Literal["same", "widened", "narrowed", "changed"]
Shape = tuple[int | None, ...] | None

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
_MOST_OUTPUTS = {CLASSIFY: 2, REGRESS: 1}
"""How many outputs the API takes: classifier.cc and regressor.cc refuse a signature with more."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two sets of signatures; `kind` is a stable name for scripts."""

    kind: str
    breaking: bool
    signature: str
    message: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All changes from old to new, the breaking ones first."""

    changes: tuple[Change, ...] = ()

    @property
    def verdict(self) -> Compatibility:
        """What all changes together mean to clients of the old signatures."""
        if not self.changes:
            return "same"
        return "breaking" if self.breaking else "compatible"

    @property
    def breaking(self) -> tuple[Change, ...]:
        """The changes that break clients."""
        return tuple(one for one in self.changes if one.breaking)


def compare_signatures(old: Iterable[Signature], new: Iterable[Signature]) -> Comparison:
    """Say what becomes of a client that was written for `old` when it meets `new`.

    Names of tensors in the graph do not count: no client can see them.
    """
    before = {one.key: one for one in old}
    after = {one.key: one for one in new}
    gone = [before[key] for key in sorted(before.keys() - after.keys())]
    added = [after[key] for key in sorted(after.keys() - before.keys())]
    return comparison(
        [
            *_gone_signatures(gone, added),
            *(
                _change("signature-added", one.key, f"signature {one.key} was added")
                for one in added
            ),
            *(
                change
                for key in sorted(before.keys() & after.keys())
                for change in _compare(before[key], after[key])
            ),
        ]
    )


def comparison(changes: Iterable[Change]) -> Comparison:
    """Return changes in the order in which people read them: what breaks first, then by signature."""
    return Comparison(
        changes=tuple(sorted(changes, key=lambda one: (not one.breaking, one.signature)))
    )


def compare_shapes(old: Shape, new: Shape) -> ShapeChange:
    """Say whether `new` allows all that `old` does (widened), less (narrowed), or something else.

    A free dimension allows every size, an unknown rank every shape.
    """
    if old == new:
        return "same"
    if _allows(new, old):
        return "widened"
    return "narrowed" if _allows(old, new) else "changed"


def say_spec(spec: TensorSpec) -> str:
    """Return a tensor's type for people: float32[?, 4]; an unknown rank is […]."""
    return f"{spec.dtype}{say_shape(spec.shape)}"


def say_shape(shape: Shape) -> str:
    """Return a shape for people."""
    if shape is None:
        return "[…]"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _allows(wide: Shape, narrow: Shape) -> bool:
    if wide is None:
        return True
    return (
        narrow is not None
        and len(wide) == len(narrow)
        and all(one is None or one == other for one, other in zip(wide, narrow, strict=True))
    )


def _compare(old: Signature, new: Signature) -> Iterator[Change]:
    key = old.key
    if old.method_name != new.method_name:
        yield _change(
            "method-changed",
            key,
            f"signature {key}: its method was {old.method_name or 'none'} and is "
            f"{new.method_name or 'none'} now",
            breaking=True,
        )
    yield from _compare_inputs(old, new)
    yield from _compare_outputs(old, new)


def _compare_inputs(old: Signature, new: Signature) -> Iterator[Change]:
    before, gone, added, common = _sides(old.inputs, new.inputs)
    yield from _gone_tensors(old.key, "input", gone, added)
    for spec in added:
        where = f"signature {old.key}: input {spec.alias} ({say_spec(spec)})"
        if not spec.has_default:
            text = f"{where} is new and has no default: clients do not send it"
            yield _change("input-required", old.key, text, breaking=True)
        elif old.method_name in _MOST_OUTPUTS:
            api = old.method_name.rpartition("/")[2]
            text = f"{where} is new: the {api} API takes exactly one input"
            yield _change("input-added", old.key, text, breaking=True)
        else:
            # JSON rows must name every input (json_tensor.cc), whatever has a default.
            text = (
                f"{where} is new and has a default; REST clients that send instances must name it"
            )
            yield _change("input-added", old.key, text)
    for spec in common:
        yield from _compare_tensor(old.key, "input", before[spec.alias], spec)
        yield from _compare_defaults(old.key, before[spec.alias], spec)


def _compare_outputs(old: Signature, new: Signature) -> Iterator[Change]:
    before, gone, added, common = _sides(old.outputs, new.outputs)
    yield from _gone_tensors(old.key, "output", gone, added)
    most = _MOST_OUTPUTS.get(old.method_name)
    for spec in added:
        text = f"signature {old.key}: output {spec.alias} ({say_spec(spec)}) was added"
        too_many = most is not None and len(new.outputs) > most
        if too_many:
            text += f"; the {old.method_name.rpartition('/')[2]} API takes {most} at most"
        elif len(old.outputs) == 1:
            # json_tensor.cc: a single output is not named in the reply, several are.
            text += "; REST replies name their outputs from now on"
        yield _change("output-added", old.key, text, breaking=too_many)
    for spec in common:
        yield from _compare_tensor(old.key, "output", before[spec.alias], spec)


def _compare_tensor(key: str, side: str, old: TensorSpec, new: TensorSpec) -> Iterator[Change]:
    where = f"signature {key}: {side} {old.alias}"
    if old.dtype != new.dtype:
        text = f"{where} was {old.dtype} and is {new.dtype} now"
        yield _change(f"{side}-dtype-changed", key, text, breaking=True)
    shape = compare_shapes(old.shape, new.shape)
    if shape != "same":
        text = f"{where}: its shape was {say_shape(old.shape)} and is {say_shape(new.shape)} now"
        yield _change(
            f"{side}-shape-{shape}", key, f"{text} ({shape})", breaking=shape != "widened"
        )


def _compare_defaults(key: str, old: TensorSpec, new: TensorSpec) -> Iterator[Change]:
    where = f"signature {key}: input {old.alias}"
    if old.has_default and not new.has_default:
        text = f"{where} had a default and has none now: clients that leave it out are refused"
        yield _change("input-lost-default", key, text, breaking=True)
    elif new.has_default and not old.has_default:
        yield _change("input-gained-default", key, f"{where} may be left out now")
    elif old.default and new.default and old.default != new.default:
        text = f"{where}: its default was {old.default} and is {new.default} now"
        yield _change("input-default-changed", key, text)


def _sides(
    old: Sequence[TensorSpec], new: Sequence[TensorSpec]
) -> tuple[dict[str, TensorSpec], list[TensorSpec], list[TensorSpec], list[TensorSpec]]:
    """Return the old ones by alias, what is gone, what was added, and what is there still, as it is now."""
    before = {one.alias: one for one in old}
    after = {one.alias: one for one in new}
    return (
        before,
        [before[alias] for alias in sorted(before.keys() - after.keys())],
        [after[alias] for alias in sorted(after.keys() - before.keys())],
        [after[alias] for alias in sorted(before.keys() & after.keys())],
    )


def _gone_tensors(
    key: str, side: str, gone: Sequence[TensorSpec], added: Sequence[TensorSpec]
) -> Iterator[Change]:
    alike: dict[tuple[str, Shape], list[str]] = {}
    for one in added:
        alike.setdefault((one.dtype, one.shape), []).append(one.alias)
    for spec in gone:
        names = alike.get((spec.dtype, spec.shape), [])
        renamed = f"; {names[0]} is new and has the same type: was it renamed?" if names else ""
        text = f"signature {key}: {side} {spec.alias} ({say_spec(spec)}) is gone{renamed}"
        yield _change(f"{side}-removed", key, text, breaking=True)


def _gone_signatures(gone: Sequence[Signature], added: Sequence[Signature]) -> Iterator[Change]:
    alike: dict[object, str] = {}
    for one in added:
        alike.setdefault(_shape_of(one), one.key)
    for one in gone:
        other = alike.get(_shape_of(one))
        renamed = f"; {other} is new and has the same tensors: was it renamed?" if other else ""
        text = f"signature {one.key} is gone{renamed}"
        yield _change("signature-removed", one.key, text, breaking=True)


def _shape_of(signature: Signature) -> object:
    return tuple(
        tuple((spec.alias, spec.dtype, spec.shape) for spec in specs)
        for specs in (signature.inputs, signature.outputs)
    )


def _change(kind: str, signature: str, message: str, *, breaking: bool = False) -> Change:
    return Change(kind=kind, breaking=breaking, signature=signature, message=message)
