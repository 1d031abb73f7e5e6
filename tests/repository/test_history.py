from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import NewerFormat, RepositoryDamaged
from servingrepo.repository import history
from servingrepo.repository.history import Event, previous_served
from servingrepo.storage.disk import Disk

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


def event(
    number: int, before: tuple[int, ...] = (), after: tuple[int, ...] = (), model: str = "m"
) -> Event:
    return Event(
        schema=1,
        id=f"t{number}",
        time="2026-01-01T00:00:00.000+00:00",
        action="serve",
        model=model,
        before=before,
        after=after,
        user="eva",
        host="h",
    )


def served(*steps: int | None) -> list[Event]:
    """Make the events of a model that served these versions one after the other."""
    pins = [() if one is None else (one,) for one in steps]
    return [
        event(number, before, after)
        for number, (before, after) in enumerate(zip([(), *pins], pins, strict=False))
    ]


@pytest.mark.parametrize(
    ("steps", "current", "bad", "expected"),
    [
        ((), None, (), None),
        ((1,), 1, (), None),
        ((1, 2), 2, (), 1),
        ((1, 2, 3), 3, (), 2),
        # rollback 3 > 2 that marked 3 bad: the next one goes on to 1
        ((1, 2, 3, 2), 2, (3,), 1),
        # rollback 3 > 2 that did not: the version before is 3
        ((1, 2, 3, 2), 2, (), 3),
        # two rollbacks, then a new version: back to what was served before it
        ((1, 2, 3, 2, 1, 4), 4, (3, 2), 1),
        ((1, 2, 3, 2, 4), 4, (3,), 2),
        ((1, 2, 3), 3, (2,), 1),
        ((1, 2, 3), 3, (1, 2), None),
        # nothing is served now: what was served last
        ((1, 2, None), None, (), 2),
        ((1, 2, None), None, (2,), 1),
        # 9 came by an edit by hand, of which history knows nothing
        ((1, 2), 9, (), 2),
        # a version served twice in a row by two events is one
        ((1, 1, 2, 2), 2, (), 1),
    ],
)
def test_previous_served_is_the_one_before_the_present_one_that_is_usable(
    steps: tuple[int | None, ...], current: int | None, bad: tuple[int, ...], expected: int | None
) -> None:
    found = previous_served(
        served(*steps), current=current, usable=lambda version: version not in bad
    )
    assert found == expected


def test_labelled_versions_do_not_count_as_served() -> None:
    events = [event(1, (), (1,)), event(2, (1,), (1, 3)), event(3, (1, 3), (1, 4))]
    assert previous_served(events, current=4, usable=lambda _: True) == 3


def test_there_is_no_event_in_a_repository_without_a_history(tmp_path: Path) -> None:
    assert list(history.read(tmp_path / "history.jsonl")) == []


def test_events_are_read_as_they_were_written_each_with_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    events = [event(1), event(2, (1,), (2,), model="other")]
    for one in events:
        history.append(Disk(), path, one)
    assert list(history.read(path)) == events
    lines = path.read_bytes().splitlines()
    assert [msgspec.json.decode(line)["schema"] for line in lines] == [1, 1]


def test_events_of_one_model_are_not_those_of_its_namesakes(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    sly = msgspec.structs.replace(event(3, model="other"), why='"model":"m"')
    for one in (event(1), event(2, model="mm"), sly):
        history.append(Disk(), path, one)
    assert [one.id for one in history.read(path, model="m")] == ["t1"]


def test_a_torn_last_line_is_skipped_and_cut_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(Disk(), path, event(1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1])
    assert [one.id for one in history.read(path)] == ["t1"]
    history.append(Disk(), path, event(2))
    assert [one.id for one in history.read(path)] == ["t1", "t2"]
    assert path.read_bytes().startswith(whole)


def test_a_line_of_a_newer_schema_is_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(Disk(), path, event(1))
    newer = msgspec.to_builtins(event(2)) | {"schema": 2, "mood": "new"}
    with path.open("ab") as stream:
        stream.write(msgspec.json.encode(newer) + b"\n")
    with pytest.raises(NewerFormat, match="line 2"):
        list(history.read(path))


def test_a_newer_line_that_this_release_cannot_decode_is_newer_and_not_damaged(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"schema":2,"model":"m"}\n')
    with pytest.raises(NewerFormat, match="line 1"):
        list(history.read(path))


@pytest.mark.parametrize("line", [b"{}", b"not json", b"\x00\x00", b'{"schema":1,"model":"m"}'])
def test_a_whole_line_that_is_no_event_is_damage(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(RepositoryDamaged, match="line 1"):
        list(history.read(path))


def test_history_tells_what_was_done(repo: OpenRepository, release: Release) -> None:
    assert list(repo.history()) == []
    release(1.0)
    release(2.0)
    repo.rollback("m", message="worse")
    events = list(repo.history("m"))
    assert [(one.action, one.before, one.after) for one in events] == [
        ("promote", (), (1,)),
        ("promote", (1,), (2,)),
        ("rollback", (2,), (1,)),
    ]
    assert events[-1].marked_bad == 2
    assert events[-1].why == "worse"
    assert events[0].proof == "not checked"
    assert all(one.user and one.host and one.time for one in events)
