"""Bytes that wait in an unnamed file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoSpace
from servingrepo.storage.scratch import spool

if TYPE_CHECKING:
    from pathlib import Path


def test_a_spool_gives_back_what_it_was_given(tmp_path: Path) -> None:
    with spool(tmp_path) as waiting:
        texts = [b"x" * size for size in (0, 1, 70_000, 3)]
        places = [waiting.add(text) for text in texts]
        assert [waiting.read(place) for place in places] == texts
        assert waiting.read(waiting.add(b"later")) == b"later"
        assert list(tmp_path.iterdir()) == []


def test_a_spool_on_a_full_disk_says_so(small_disk: Path) -> None:
    with pytest.raises(NoSpace, match="temporary file"), spool(small_disk) as waiting:
        waiting.add(b"x" * 1_000_000)
