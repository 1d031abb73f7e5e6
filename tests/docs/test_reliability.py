"""The table of docs/reliability.md has the form that `make reliability` prints; its numbers are of the last run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.crash.reliability import LANES, Lane, complete, row, table, tried

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
