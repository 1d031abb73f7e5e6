"""Who decided what is served while a promotion ran, found without reading a long history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import servingrepo
from servingrepo.repository.overtaking import newest_event, overtaken_by
from servingrepo.repository.transaction import new_event
from tests.support import bytes_read

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.repository.repository import Repository


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A repository without a model."""
    made, _ = servingrepo.init(tmp_path / "repo")
    return made.value


def happen(repo: Repository, *ids: str, action: str = "promote", after: int = 1) -> None:
    """Let events of the model m be in history, and one of another model after each."""
    with repo.layout.history.open("ab") as stream:
        for one in ids:
            for txid, model in ((one, "m"), (f"other-{one}", "n")):
                event = new_event(
                    repo, txid=txid, action=action, model=model, before=(7,), after=(after,)
                )
                stream.write(msgspec.json.encode(event) + b"\n")


def test_without_a_history_nobody_decided_anything(repo: Repository) -> None:
    assert newest_event(repo, "m") == ""
    assert overtaken_by(repo, "m", 2, since="") == ""


def test_only_what_came_after_an_event_counts_and_the_last_of_it_is_named(repo: Repository) -> None:
    happen(repo, "early", action="rollback")
    known = newest_event(repo, "m")
    assert known == "early"
    assert overtaken_by(repo, "m", 2, since=known) == ""
    happen(repo, "hold", action="hold")
    happen(repo, "lower", after=1)
    assert overtaken_by(repo, "m", 2, since=known) == ""
    happen(repo, "served", action="serve", after=4)
    happen(repo, "higher", after=5)
    assert overtaken_by(repo, "m", 2, since=known).startswith("promote by ")
    assert overtaken_by(repo, "m", 2, since=known).endswith("(served since: 5)")
    assert overtaken_by(repo, "m", 6, since=known).startswith("serve by ")
    assert overtaken_by(repo, "m", 2, since="") != ""
    assert overtaken_by(repo, "m", 2, since=newest_event(repo, "m")) == ""


def test_a_promotion_reads_no_more_of_a_long_history_than_what_came_while_it_ran(
    repo: Repository,
) -> None:
    happen(repo, "t")
    once_written = repo.layout.history.read_bytes()
    repo.layout.history.write_bytes(once_written * 30_000)
    happen(repo, "last")

    before = bytes_read()
    known = newest_event(repo, "m")
    assert overtaken_by(repo, "m", 2, since=known) == ""
    assert bytes_read() - before < 1_000_000 < repo.layout.history.stat().st_size
