"""Compare answers with what the signature promises: names, dtypes, shapes, and finite numbers."""

from __future__ import annotations

import cmath
import math
from typing import TYPE_CHECKING, Any

from servingrepo.smoke.expectations import fits_shape
from servingrepo.smoke.tensors import Tensor, read_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from servingrepo.savedmodel.values import Signature, TensorSpec

__all__ = [
    "check_classification",
    "check_outputs",
    "check_regression",
    "check_version",
    "classification_outputs",
    "not_finite",
    "read_outputs",
    "regression_outputs",
    "shape_problems",
]


def check_version(reply: Any, version: int) -> list[str]:
    """Return a problem if another version than the one asked for has answered."""
    answered = reply.model_spec.version.value
    return [] if answered == version else [f"version {answered} answered instead of {version}"]


def read_outputs(reply: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Return a Predict reply's outputs by alias, and a problem for each output that cannot be read."""
    outputs, problems = {}, []
    for alias, message in sorted(reply.outputs.items()):
        try:
            outputs[alias] = read_tensor(message)
        except ValueError as error:
            problems.append(f"output {alias} cannot be read: {error}")
    return outputs, problems


def check_outputs(outputs: Mapping[str, Tensor], signature: Signature) -> list[str]:
    """Return a problem for each output whose name or dtype differs from the signature."""
    wanted = {spec.alias: spec for spec in signature.outputs}
    problems = [f"output {alias} is missing" for alias in wanted if alias not in outputs]
    problems += [f"output {alias} was never declared" for alias in outputs if alias not in wanted]
    problems += [
        f"output {alias} is {outputs[alias].dtype}, declared {spec.dtype}"
        for alias, spec in wanted.items()
        if alias in outputs and outputs[alias].dtype != spec.dtype
    ]
    return problems


def shape_problems(outputs: Mapping[str, Tensor], signature: Signature) -> list[str]:
    """Return a problem for each output whose shape differs from the signature. A free dimension fits every size."""
    return [
        f"output {spec.alias} has the shape {list(outputs[spec.alias].shape)}, "
        f"declared {_shown(spec)}"
        for spec in signature.outputs
        if spec.alias in outputs and not fits_shape(outputs[spec.alias].shape, spec.shape)
    ]


def not_finite(outputs: Mapping[str, Tensor]) -> list[str]:
    """Return a problem for each output with NaN or infinity."""
    return [
        f"output {alias} is not finite: {bad}"
        for alias, tensor in outputs.items()
        if (bad := _first_not_finite(tensor.values)) is not None
    ]


def check_classification(reply: Any, count: int) -> tuple[list[str], list[str]]:
    """Return the problems of a ClassificationResponse: those of its form, and those of NaN or infinity."""
    results = reply.result.classifications
    same = len(results) == count
    problems = [] if same else [f"{len(results)} classifications for {count} examples"]
    bad = _first_not_finite(one.score for each in results for one in each.classes)
    return problems, [] if bad is None else [f"a score is not finite: {bad}"]


def check_regression(reply: Any, count: int) -> tuple[list[str], list[str]]:
    """Return the problems of a RegressionResponse: those of its form, and those of NaN or infinity."""
    results = reply.result.regressions
    problems = [] if len(results) == count else [f"{len(results)} values for {count} examples"]
    bad = _first_not_finite(one.value for one in results)
    return problems, [] if bad is None else [f"a value is not finite: {bad}"]


def classification_outputs(reply: Any) -> dict[str, Tensor]:
    """Return the labels and scores of a ClassificationResponse, if all examples have the same number of them."""
    results = reply.result.classifications
    sizes = {len(one.classes) for one in results}
    if len(sizes) != 1:
        return {}
    shape = (len(results), *sizes)
    classes = [one for each in results for one in each.classes]
    scores = Tensor(dtype="float32", shape=shape, values=tuple(one.score for one in classes))
    if not any(one.label for one in classes):
        return {"scores": scores}
    labels = tuple(one.label.encode() for one in classes)
    return {"classes": Tensor(dtype="string", shape=shape, values=labels), "scores": scores}


def regression_outputs(reply: Any) -> dict[str, Tensor]:
    """Return the values of a RegressionResponse."""
    values = tuple(one.value for one in reply.result.regressions)
    return {"outputs": Tensor(dtype="float32", shape=(len(values),), values=values)}


def _shown(spec: TensorSpec) -> str:
    sizes = ("?" if one is None else str(one) for one in spec.shape or ())
    return f"[{', '.join(sizes)}]"


def _first_not_finite(values: Iterable[Any]) -> float | complex | None:
    if isinstance(values, tuple):  # of a tensor: all values have one type
        kind = type(values[0]) if values else int
        if kind in {int, bool, bytes} or (kind is float and math.isfinite(sum(values))):
            return None
    wrong = (one for one in values if isinstance(one, float | complex) and not cmath.isfinite(one))
    return next(wrong, None)
