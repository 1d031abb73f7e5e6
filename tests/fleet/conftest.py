"""What tests of several servers share."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fleet() -> Iterator[ExitStack]:
    """Keep servers running until the test ends."""
    with ExitStack() as stack:
        yield stack
