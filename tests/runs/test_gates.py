from __future__ import annotations

import math
from typing import Any

import pytest

from servingrepo.errors import UsageError
from servingrepo.runs.gates import Served, judge_gate, numbers_of, parse_gate
from servingrepo.runs.measurements import Measurement, Point


def measured(name: str, *values: float, **more: Any) -> Measurement:
    points = [Point(step=at, value=one, file="events.1") for at, one in enumerate(values)]
    numbers = [one for one in points if not math.isnan(one.value)]
    return Measurement(
        name=name,
        source="tensorboard",
        count=len(points),
        last=points[-1],
        lowest=min(numbers, key=lambda one: one.value, default=None),
        highest=max(numbers, key=lambda one: one.value, default=None),
        **more,
    )


ACC = measured("logs/validation/epoch_accuracy", 0.5, 0.95, 0.91)
LOSS = measured("logs/validation/epoch_loss", 3.0, 0.1, 0.4)
TRAIN = measured("logs/train/epoch_loss", 1.0, 0.2)
EXACT = measured("validation/auc", 0.75)
RUN = (ACC, LOSS, TRAIN, EXACT)


@pytest.mark.parametrize(
    ("text", "verdict", "value"),
    [
        ("validation/accuracy >= 0.91", "passed", 0.91),
        ("validation/accuracy > 0.91", "failed", 0.91),
        ("last(validation/accuracy)>=.92", "failed", 0.91),
        ("best(validation/accuracy) >= 0.92", "passed", 0.95),
        ("best( validation/loss ) < 0.2", "passed", 0.1),
        ("validation/epoch_loss <= 4e-1", "passed", 0.4),
        ("logs/validation/epoch_loss < -1", "failed", 0.4),
        ("auc >= 0.75", "passed", 0.75),
        ("loss < 1", "missing", None),
        ("accuracies > 0", "missing", None),
        ("auc >= served - 0.005", "passed", 0.75),
        ("auc > served", "failed", 0.75),
        ("best(validation/accuracy) >= served + 0.05", "failed", 0.95),
        ("best(validation/loss) <= served", "passed", 0.1),
        ("validation/loss <= served", "missing", 0.4),
    ],
)
def test_a_gate_is_judged(text: str, verdict: str, value: float | None) -> None:
    before = (
        measured("validation/auc", 0.75),
        measured("eval/accuracy", 0.7),
        measured("logs/validation/epoch_accuracy", 0.91, 0.1),
        measured("logs/validation/epoch_loss", 0.1, math.nan),
    )
    served = Served(version=3, numbers=numbers_of(before))
    found = judge_gate(parse_gate(text), RUN, served=served)
    assert (found.verdict, found.value) == (verdict, value), found.why


def test_a_gate_says_tag_value_step_and_file() -> None:
    found = judge_gate(parse_gate("validation/accuracy >= 0.92"), RUN, served=None)
    assert (found.name, found.step, found.file, found.bound) == (ACC.name, 2, "events.1", 0.92)
    assert found.why == "logs/validation/epoch_accuracy is 0.91 (last, step 2, events.1)"


def test_a_gate_that_several_names_fit_is_missing_and_lists_them() -> None:
    found = judge_gate(parse_gate("loss < 9"), RUN, served=None)
    assert "may be any of logs/validation/epoch_loss, logs/train/epoch_loss" in found.why


def test_a_gate_when_nothing_is_served_says_that_nothing_was_compared() -> None:
    assert judge_gate(parse_gate("auc > served"), RUN, served=None).verdict == "not compared"
    assert judge_gate(parse_gate("nothing > served"), RUN, served=None).verdict == "missing"


@pytest.mark.parametrize("text", ["loss < 1", "best(loss) < 1", "loss > -1"])
def test_a_gate_does_not_pass_when_the_value_is_not_a_number(text: str) -> None:
    found = judge_gate(parse_gate(text), [measured("loss", math.nan)], served=None)
    assert (found.verdict, found.value) == ("failed", None)


def test_a_gate_does_not_pass_on_what_two_runs_wrote() -> None:
    found = judge_gate(
        parse_gate("loss < 1"),
        [measured("loss", 0.1, doubtful="two runs write there")],
        served=None,
    )
    assert (found.verdict, found.why.endswith("but two runs write there")) == ("failed", True)


@pytest.mark.parametrize(
    "text",
    ["", "loss", "loss =< 1", "loss == 1", "loss < x", "< 1", "loss < served * 2", "f(x) < 1"],
)
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no gate"):
        parse_gate(text)


def test_a_value_close_to_the_bound_is_shown_whole() -> None:
    """0.9 written as float32 is less than 0.9."""
    value = 0.8999999761581421
    verdict = judge_gate(parse_gate("a >= 0.9"), [measured("a", value)], served=None)
    assert verdict.verdict == "failed"
    assert f"a is {value}" in verdict.why
