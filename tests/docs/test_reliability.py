"""The table of docs/reliability.md has the form that `make reliability` prints; its numbers are of the last run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.reliability import (
    LANES,
    Lane,
    Session,
    charged,
    complete,
    row,
    run_all,
    table,
    tried,
)

if TYPE_CHECKING:
    import pytest

PROJECT = Path(__file__).resolve().parents[2]


def rows_in_the_document() -> list[str]:
    text = (PROJECT / "docs" / "reliability.md").read_text()
    found = re.search(r"<!-- reliability -->\n(.*?)\n<!-- /reliability -->", text, re.DOTALL)
    assert found is not None
    return found[1].splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_table_has_a_row_for_each_lane_and_none_has_a_violation() -> None:
    rows = rows_in_the_document()
    assert "\n".join(rows[:2]) == table([])
    assert [cells(line)[0] for line in rows[2:]] == [lane.name for lane in LANES]
    for line, lane in zip(rows[2:], LANES, strict=True):
        _, what, violations, command = cells(line)
        assert command == lane.command
        assert violations == "0"
        pattern = ", ".join(re.escape(words) for _, words in lane.shown).replace(r"\{\}", r"[\d,]+")
        assert re.fullmatch(pattern, what), what


def test_a_number_that_is_missing_is_said_to_be_not_tried() -> None:
    lane = Lane("x", (("states", "{} states"), ("kills", "{} kills")), module=("x",))
    found = {"lane": "x", "violations": 0, "counts": {"states": 1200}}
    assert tried(lane, found) == "1,200 states, kills: **not tried**"
    assert not complete(lane, found)
    assert complete(lane, {"violations": 0, "states": 1, "kills": 2})
    assert not complete(lane, {"violations": 1, "states": 1, "kills": 2})
    assert row(lane, found) == "| x | 1,200 states, kills: **not tried** | 0 | `-m x` |"


def test_what_fails_without_saying_for_which_row_is_charged_to_the_first_one_of_its_run() -> None:
    lane = next(one for one in LANES if one.name == "power loss")
    found = [
        {"lane": "power loss", "counts": {"states": 3}, "violations": 0},
        {"lane": "power loss after a kill", "counts": {"states": 3}, "violations": 2},
    ]
    stray = {"lane": "fault points", "counts": {}, "violations": 1}
    assert [one["violations"] for one in charged(lane, found, 0)] == [0, 2]
    assert [one["violations"] for one in charged(lane, [*found, stray], 1)] == [1, 2]
    assert [one["violations"] for one in charged(lane, found[:1], 2)] == [1]


def test_a_lane_that_breaks_off_keeps_no_other_from_running_and_all_is_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Lane("broken", (("runs", "{} runs"),), module=("this",))
    races = ("tests.crash.races", "--seconds", "1", "--processes", "2")
    whole = Lane("races", (("runs", "{} operations"),), module=races, beside=True)
    target = tmp_path / "all.json"
    results = run_all([broken, whole], Session(tmp_path, 1), target)
    assert not complete(broken, results["broken"])
    assert row(broken, results["broken"]).startswith("| broken | runs: **not tried** | ? |")
    assert complete(whole, results["races"])
    assert {one["lane"] for one in json.loads(target.read_text())} == {"broken", "races"}
    said = capsys.readouterr().err
    assert row(broken, results["broken"]) in said
    assert row(whole, results["races"]) in said
