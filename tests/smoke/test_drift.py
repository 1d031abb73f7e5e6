"""How a candidate's drift is measured and judged, on answers whose difference is known."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingrepo.smoke.differences import measure, measure_accuracy
from servingrepo.smoke.drift import (
    REPEATS,
    DriftBudget,
    OutputDrift,
    churn_interval,
    judge_outputs,
    mcnemar,
    merge,
    merge_accuracy,
    open_cases,
)
from servingrepo.smoke.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SEEDS = 200
STRICT = DriftBudget(max_diff=0.01, max_churn=0.05)


def floats(*rows: Sequence[float]) -> Tensor:
    values = tuple(float(one) for row in rows for one in row)
    return Tensor(dtype="float32", shape=(len(rows), len(rows[0])), values=values)


def strings(*values: bytes) -> Tensor:
    return Tensor(dtype="string", shape=(len(values),), values=values)


def drift(
    live: Tensor, again: Tensor, candidate: Tensor, budget: DriftBudget = STRICT
) -> OutputDrift:
    return measure(
        live, again, candidate, signature="serving_default", output="y", case="c#1", budget=budget
    )


def outcome(
    found: OutputDrift, budget: DriftBudget, repeats: Sequence[OutputDrift] = ()
) -> list[str]:
    return [one.outcome for one in judge_outputs([found], budget, repeats=[repeats])]


def test_a_known_difference_is_measured() -> None:
    live = floats([0.1, 0.9], [0.8, 0.2])
    found = drift(live, live, floats([0.1, 0.9], [0.3, 0.7]))
    assert (found.rows, found.elements, found.labelled) == (2, 4, 2)
    assert found.largest == pytest.approx(0.5)
    assert found.mean == pytest.approx(0.25)
    assert (found.changed, found.only_changed, found.over) == (1, 1, 1)
    assert found.worst == found.first_changed == ("c#1", 1)
    assert (found.noise_largest, found.noise_changed, found.noise_over) == (0.0, 0, 0)
    assert found.churn == pytest.approx(0.5)


def test_noise_of_live_is_measured_apart() -> None:
    found = drift(floats([0.4, 0.6]), floats([0.7, 0.3]), floats([0.4, 0.6]))
    assert (found.largest, found.changed) == (0.0, 0)
    assert found.noise_largest == pytest.approx(0.3)
    assert (found.noise_changed, found.only_noise, found.noise_over) == (1, 1, 1)


@pytest.mark.parametrize(
    ("one", "other", "largest"),
    [
        (math.nan, math.nan, 0.0),
        (math.inf, math.inf, 0.0),
        (math.nan, 1.0, math.inf),
        (math.inf, -math.inf, math.inf),
        (1.0, math.inf, math.inf),
    ],
)
def test_what_is_not_finite_differs_from_all_else(one: float, other: float, largest: float) -> None:
    found = drift(floats([one]), floats([one]), floats([other]))
    assert found.largest == largest
    assert math.isfinite(found.mean)


def test_a_missing_row_differs_by_infinity() -> None:
    live = floats([0.1, 0.9], [0.8, 0.2])
    found = drift(live, live, floats([0.1, 0.9]))
    assert (found.rows, found.largest, found.changed) == (2, math.inf, 1)


def test_strings_and_integers_have_labels_and_no_difference() -> None:
    live = strings(b"cat", b"dog")
    found = drift(live, live, strings(b"cat", b"cow"))
    assert (found.elements, found.labelled, found.changed) == (0, 2, 1)
    whole = Tensor(dtype="int64", shape=(2,), values=(1, 2))
    assert drift(whole, whole, whole).changed == 0


def test_a_single_score_has_no_label() -> None:
    one = floats([0.4], [0.6])
    found = drift(one, one, floats([0.5], [0.6]))
    assert (found.labelled, found.churn) == (0, None)
    assert found.largest == pytest.approx(0.1)


def test_drifts_of_cases_add_up() -> None:
    live = floats([0.1, 0.9])
    first = drift(live, live, live)
    second = measure(
        live, live, floats([0.6, 0.4]), signature="s", output="y", case="c#2", budget=STRICT
    )
    both = merge(first, second)
    assert (both.rows, both.changed, both.worst, both.first_changed) == (
        2,
        1,
        ("c#2", 0),
        ("c#2", 0),
    )
    assert merge(second, first).worst == ("c#2", 0)


@pytest.mark.parametrize(
    ("changed", "rows", "low", "high"),
    [(0, 100, 0.0, 0.0362), (5, 100, 0.0164, 0.1128), (100, 100, 0.9638, 1.0), (1, 1, 0.025, 1.0)],
)
def test_the_interval_is_clopper_and_pearsons(
    changed: int, rows: int, low: float, high: float
) -> None:
    assert churn_interval(changed, rows) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 400), st.data())
def test_the_interval_holds_the_share(rows: int, data: Any) -> None:
    changed = data.draw(st.integers(0, rows))
    low, high = churn_interval(changed, rows)
    assert 0 <= low <= changed / rows <= high <= 1


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (6, 0, 0.03125), (2, 12, 0.012939)],
)
def test_mcnemar_is_exact(one: int, other: int, p: float) -> None:
    assert mcnemar(one, other) == pytest.approx(p, abs=1e-6)


def test_accuracy_counts_who_is_right() -> None:
    live, other = floats([0.9, 0.1], [0.9, 0.1], [0.9, 0.1]), floats([0.9, 0.1], [0.1, 0.9], [0, 1])
    one = measure_accuracy(live, other, [0, 1, 0], signature="s", output="y")
    both = merge_accuracy(one, measure_accuracy(live, other, [1, 1, 1], signature="s", output="y"))
    assert (one.rows, one.live, one.candidate) == (3, 2, 2)
    assert (one.only_live, one.only_candidate) == (1, 1)
    assert (both.rows, both.live, both.candidate) == (6, 2, 4)
    named = strings(b"cat")
    found = measure_accuracy(named, named, ["cat"], signature="s", output="y")
    assert (found.live, found.candidate) == (1, 1)


def test_labels_that_fit_no_row_are_refused() -> None:
    live = floats([0.9, 0.1])
    with pytest.raises(ValueError, match="2 labels for 1 and 1 rows"):
        measure_accuracy(live, live, [0, 1], signature="s", output="y")
    with pytest.raises(ValueError, match="no argmax"):
        measure_accuracy(floats([0.9]), floats([0.9]), [1], signature="s", output="y")


def test_no_budget_gives_no_verdict() -> None:
    live = floats([0.1, 0.9])
    assert judge_outputs([drift(live, live, floats([0.9, 0.1]))], DriftBudget()) == ()


def test_a_difference_that_comes_every_time_fails() -> None:
    live, other = floats([0.1, 0.9]), floats([0.2, 0.8])
    budget = DriftBudget(max_diff=0.05)
    found = drift(live, live, other, budget)
    assert outcome(found, budget) == ["inconclusive"]
    assert open_cases(found, budget) == {"c#1"}
    assert outcome(found, budget, [found] * (REPEATS - 1)) == ["inconclusive"]
    assert outcome(found, budget, [found] * REPEATS) == ["failed"]
    once_quiet = [found] * (REPEATS - 1) + [drift(live, live, live, budget)]
    assert outcome(found, budget, once_quiet) == ["inconclusive"]


def test_a_difference_in_many_rows_fails_at_once() -> None:
    live, other = floats(*[[0.1, 0.9]] * 8), floats(*[[0.2, 0.8]] * 8)
    budget = DriftBudget(max_diff=0.05)
    found = drift(live, live, other, budget)
    assert outcome(found, budget) == ["failed"]
    assert open_cases(found, budget) == frozenset()
    (verdict,) = judge_outputs([found], budget)
    assert "0.1, allowed are 0.05 (c#1, row 0)" in str(verdict)


def test_a_budget_below_the_noise_floor_decides_nothing() -> None:
    live = floats(*[[0.5, 0.5]] * 8)
    noisy = floats(*[[0.6, 0.4]] * 8)
    budget = DriftBudget(max_diff=0.05)
    assert outcome(drift(live, noisy, live, budget), budget) == ["inconclusive"]
    (verdict,) = judge_outputs([drift(live, noisy, noisy, budget)], budget)
    assert verdict.outcome == "inconclusive"
    assert "live differs from itself by 0.1" in verdict.reason


def test_too_few_rows_are_inconclusive_and_say_how_many() -> None:
    live = floats(*[[0.1, 0.9]] * 50)
    budget = DriftBudget(max_churn=0.01)
    (verdict,) = judge_outputs([drift(live, live, live, budget)], budget)
    assert verdict.outcome == "inconclusive"
    assert "too few rows: 368 decide if none changes" in verdict.reason
    enough = floats(*[[0.1, 0.9]] * 368)
    assert outcome(drift(enough, enough, enough, budget), budget) == ["passed"]


def test_a_budget_of_no_churn_is_about_these_rows() -> None:
    live = floats([0.1, 0.9])
    budget = DriftBudget(max_churn=0.0)
    assert outcome(drift(live, live, live, budget), budget) == ["passed"]
    found = drift(live, live, floats([0.9, 0.1]), budget)
    assert outcome(found, budget) == ["inconclusive"]
    assert outcome(found, budget, [found] * REPEATS) == ["failed"]


def test_churn_of_a_swapped_vocabulary_fails() -> None:
    live = strings(*[b"cat", b"dog"] * 20)
    found = drift(live, live, strings(*[b"dog", b"cat"] * 20))
    (verdict,) = judge_outputs([found], STRICT)
    assert (verdict.budget, verdict.outcome) == ("max-churn", "failed")


def dropout(chance: random.Random) -> Tensor:
    """Every row differs each time."""
    return floats(*[[0.5 + chance.gauss(0, 0.1), 0.5 + chance.gauss(0, 0.1)] for _ in range(40)])


def rounding(chance: random.Random) -> Tensor:
    """Sums whose order differs: tiny differences."""
    return floats(*[[0.3 + chance.gauss(0, 1e-7), 0.7 + chance.gauss(0, 1e-7)] for _ in range(40)])


def rarely(chance: random.Random) -> Tensor:
    """A row in fifty is answered otherwise: a tie that the order of a hash breaks."""
    return floats(*[[0.0, 1.0] if chance.random() < 0.02 else [1.0, 0.0] for _ in range(40)])


def asked_again(
    model: Callable[[random.Random], Tensor],
    candidate: Callable[[random.Random], Tensor],
    chance: random.Random,
    budget: DriftBudget,
) -> tuple[OutputDrift, list[OutputDrift]]:
    """Measure as a promotion does: all rows once, and again where that leaves a doubt."""
    found = drift(model(chance), model(chance), candidate(chance), budget)
    again = [
        drift(model(chance), model(chance), candidate(chance), budget)
        for _ in range(REPEATS if open_cases(found, budget) else 0)
    ]
    return found, again


@pytest.mark.parametrize("model", [dropout, rounding, rarely])
def test_a_candidate_that_is_live_seldom_fails(
    model: Callable[[random.Random], Tensor],
) -> None:
    """200 seeded repetitions: false alarms stay below the 2.5 % that the tests promise."""
    alarms = 0
    for seed in range(SEEDS):
        found, again = asked_again(model, model, random.Random(seed), STRICT)  # noqa: S311 - repeatable, not secret
        alarms += "failed" in outcome(found, STRICT, again)
    assert alarms <= SEEDS * 0.025


@pytest.mark.parametrize("model", [dropout, rounding, rarely])
def test_a_candidate_that_is_worse_fails(model: Callable[[random.Random], Tensor]) -> None:
    """The same noise, and an offset of 1 on the second score: each repetition finds it."""

    def shifted(chance: random.Random) -> Tensor:
        found = model(chance)
        values = tuple(one + at % 2 * 2 for at, one in enumerate(found.values))
        return Tensor(dtype=found.dtype, shape=found.shape, values=values)

    budget = DriftBudget(max_diff=0.5 if model is dropout else 0.01)
    for seed in range(SEEDS):
        found, again = asked_again(model, shifted, random.Random(seed), budget)  # noqa: S311 - as above
        assert outcome(found, budget, again) == ["failed"], seed
