"""Differences of one output: live's answer to a request, live's second one, and the candidate's, row by row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.smoke.drift import Accuracy, DriftBudget, OutputDrift
from servingrepo.smoke.tensors import FLOATING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.smoke.tensors import Tensor

__all__ = ["measure", "measure_accuracy"]


def measure(
    live: Tensor,
    again: Tensor,
    candidate: Tensor,
    *,
    signature: str,
    output: str,
    case: str,
    budget: DriftBudget,
) -> OutputDrift:
    """Compare one output's three answers to one request: live's, live's second one, and the candidate's."""
    limit = math.inf if budget.max_diff is None else budget.max_diff
    found = [_Row.of(*three) for three in _rows(live, again, candidate)]
    worst = max(range(len(found)), key=lambda at: found[at].largest, default=None)
    labelled = [one for one in found if one.labelled]
    return OutputDrift(
        signature=signature,
        output=output,
        rows=len(found),
        elements=sum(one.elements for one in found),
        largest=max((one.largest for one in found), default=0.0),
        total=math.fsum(one.total for one in found),
        noise_largest=max((one.noise_largest for one in found), default=0.0),
        noise_total=math.fsum(one.noise_total for one in found),
        over=sum(one.largest > limit >= one.noise_largest for one in found),
        noise_over=sum(one.noise_largest > limit >= one.largest for one in found),
        labelled=len(labelled),
        changed=sum(one.changed for one in labelled),
        noise_changed=sum(one.noise_changed for one in labelled),
        only_changed=sum(one.only_changed for one in labelled),
        only_noise=sum(one.noise_changed and not one.changed for one in labelled),
        worst=None if worst is None else (case, worst),
        first_changed=next(((case, at) for at, one in enumerate(found) if one.only_changed), None),
    )


def measure_accuracy(
    live: Tensor, candidate: Tensor, labels: Sequence[Any], *, signature: str, output: str
) -> Accuracy:
    """Count the rows in which each version's argmax or value is the label.

    Raises:
        ValueError: The output has not one row for each label, or its rows have no argmax and no single value.
    """
    ours, theirs = [
        [_label(one.dtype, row, _width(one)) for row in _split(one)] for one in (live, candidate)
    ]
    if not len(ours) == len(theirs) == len(labels):
        raise ValueError(f"{len(labels)} labels for {len(ours)} and {len(theirs)} rows")
    if any(one is None or len(one) != 1 for one in (*ours, *theirs)):
        raise ValueError("a row has no argmax, or several")
    right = [
        (one == (_plain(label),), other == (_plain(label),))
        for one, other, label in zip(ours, theirs, labels, strict=True)
    ]
    return Accuracy(
        signature=signature,
        output=output,
        rows=len(right),
        live=sum(one for one, _ in right),
        candidate=sum(other for _, other in right),
        only_live=sum(one and not other for one, other in right),
        only_candidate=sum(other and not one for one, other in right),
    )


class _Row(msgspec.Struct, frozen=True):
    """One row's differences, and whether its label changes."""

    elements: int
    largest: float
    total: float
    noise_largest: float
    noise_total: float
    labelled: bool
    changed: bool
    noise_changed: bool

    @property
    def only_changed(self) -> bool:
        """Whether the label changes for the candidate only."""
        return self.labelled and self.changed and not self.noise_changed

    @staticmethod
    def of(live: _Answer, again: _Answer, candidate: _Answer) -> _Row:
        """Compare the three answers of one row."""
        theirs, noise = _differences(live, candidate), _differences(live, again)
        return _Row(
            elements=len(theirs),
            largest=max(theirs, default=0.0),
            total=math.fsum(one for one in theirs if math.isfinite(one)),
            noise_largest=max(noise, default=0.0),
            noise_total=math.fsum(one for one in noise if math.isfinite(one)),
            labelled=live.label is not None,
            changed=live.label != candidate.label,
            noise_changed=live.label != again.label,
        )


class _Answer(msgspec.Struct, frozen=True):
    """One row of one answer: its numbers if it is floating-point, and its argmax or labels if it has any."""

    numbers: tuple[float, ...] | None
    label: tuple[Any, ...] | None


def _rows(*tensors: Tensor) -> Iterator[tuple[_Answer, _Answer, _Answer]]:
    """Yield the rows of three tensors side by side. A row that one of them lacks is empty there."""
    split = [_answers(one) for one in tensors]
    most = max(len(one) for one in split)
    for at in range(most):
        live, again, candidate = (one[at] if at < len(one) else _NOTHING for one in split)
        yield live, again, candidate


_NOTHING = _Answer(numbers=None, label=None)


def _answers(tensor: Tensor) -> list[_Answer]:
    floating = tensor.dtype in FLOATING
    width = _width(tensor)
    return [
        _Answer(row if floating else None, _label(tensor.dtype, row, width))
        for row in _split(tensor)
    ]


def _split(tensor: Tensor) -> list[tuple[Any, ...]]:
    """Return the rows of a tensor. A scalar is one row."""
    rows = tensor.shape[0] if tensor.shape else 1
    size = len(tensor.values) // rows if rows else 0
    return [tensor.values[at * size : (at + 1) * size] for at in range(rows)]


def _width(tensor: Tensor) -> int:
    """Return how many numbers of a row share an argmax: the last dimension, if it is not the first too."""
    return tensor.shape[-1] if len(tensor.shape) > 1 else 0


def _label(dtype: str, row: tuple[Any, ...], width: int) -> tuple[Any, ...] | None:
    """Return the argmax of each run of scores, or the values themselves if these are no floating-point numbers."""
    if dtype not in FLOATING:
        return None if dtype.startswith("complex") or not row else tuple(row)
    if width <= 1:
        return None
    return tuple(
        max(range(width), key=row[at : at + width].__getitem__) for at in range(0, len(row), width)
    )


def _plain(label: Any) -> Any:
    return label.encode() if isinstance(label, str) else label


def _differences(one: _Answer, other: _Answer) -> list[float]:
    if one.numbers is None and other.numbers is None:
        return []
    ours, theirs = one.numbers or (), other.numbers or ()
    if len(ours) != len(theirs):
        return [math.inf] * max(len(ours), len(theirs))
    return [_difference(a, b) for a, b in zip(ours, theirs, strict=True)]


def _difference(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    apart = abs(one - other)
    return math.inf if math.isnan(apart) else apart
