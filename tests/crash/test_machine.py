"""The short form of machine.py: a few sequences, the same each time. `make sequences` plays thousands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.machine import play, set_stage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.forking import Forking


@pytest.mark.timeout(600)  # hundreds of commands, one after the other
def test_any_sequence_of_commands_and_faults_ends_where_the_model_says(
    memory: Path, forking: Forking
) -> None:
    stage = set_stage(memory, forking)
    play(stage, examples=20, steps=12, chosen=None)
    assert stage.counts["runs"] > 100
    assert stage.counts["looks"] > 30
    assert stage.counts["kill"] > 0
