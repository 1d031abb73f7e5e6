"""Lines about signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from servingrepo.savedmodel.values import Signature, TensorSpec


def signature_lines(signatures: Iterable[Signature]) -> Iterator[str]:
    """Yield a line for each signature, with its inputs and outputs."""
    for one in signatures:
        inputs = ", ".join(map(_spec, one.inputs)) or "nothing"
        outputs = ", ".join(map(_spec, one.outputs)) or "nothing"
        api = one.method_name.rpartition("/")[2] or "no method"
        yield f"signature     {one.key} ({api}): {inputs} -> {outputs}"


def _spec(spec: TensorSpec) -> str:
    if spec.shape is None:
        shape = "[…]"
    else:
        shape = "[" + ", ".join("?" if size is None else str(size) for size in spec.shape) + "]"
    return f"{spec.alias} {spec.dtype}{shape}" + (" with default" if spec.has_default else "")
