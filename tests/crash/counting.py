"""What a lane of `make reliability` has tried, handed from its tests to the one JSON object that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

COUNTS = "reliability counts"
"""The property of a test that says what it tried: `[lane, {what: how many}]`."""

JSON_TO = "RELIABILITY_JSON"
"""The environment variable that says where a run of pytest leaves what its tests have tried."""


def count(request: pytest.FixtureRequest, lane: str, counts: dict[str, int]) -> None:
    """Say what a test has tried; the counts of a lane's tests are summed."""
    request.node.user_properties.append((COUNTS, [lane, counts]))
