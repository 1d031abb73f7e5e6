"""The short form of long_life.py; `make long-life` promotes ten thousand times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.crash.long_life import ROLLBACK_EVERY, live

if TYPE_CHECKING:
    from pathlib import Path

PROMOTIONS = 120


def test_a_long_life_keeps_numbers_history_and_disk_use(memory: Path) -> None:
    facts = live(memory, promotions=PROMOTIONS, keep=3)
    assert facts["violations"] == 0, facts["found"]
    assert facts["bad_marks"] == PROMOTIONS // ROLLBACK_EVERY
    use = facts["disk_use_bytes_without_history"]
    assert use[-1] < use[3] + 300 * facts["bad_marks"]
