from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import servingrepo
from servingrepo.errors import NewerFormat, RepositoryDamaged
from servingrepo.repository import history
from servingrepo.repository.history import Event, served_before
from servingrepo.repository.retention import Keep
from servingrepo.storage.disk import Disk
from servingrepo.testing.exports import write_export
from tests.support import bytes_read

if TYPE_CHECKING:
    from collections.abc import Callable

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
def test_what_was_served_before_is_the_one_before_the_present_one_that_is_usable(
    steps: tuple[int | None, ...], current: int | None, bad: tuple[int, ...], expected: int | None
) -> None:
    found = served_before(
        reversed(served(*steps)), current=current, usable=lambda version: version not in bad
    )
    assert found == expected


def test_labelled_versions_do_not_count_as_served() -> None:
    events = [event(1, (), (1,)), event(2, (1,), (1, 3)), event(3, (1, 3), (1, 4))]
    assert served_before(reversed(events), current=4, usable=lambda _: True) == 3


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


@pytest.mark.parametrize("first", [0, 40, 60])
@pytest.mark.parametrize("last", [None, -1])
def test_a_torn_last_line_is_skipped_and_cut_by_the_next_writer(
    first: int, last: int | None, tmp_path: Path
) -> None:
    """A power loss may leave it without its end, or with zeros where blocks were not written."""
    path = tmp_path / "history.jsonl"
    history.append(Disk(), path, event(1))
    whole = path.read_bytes()
    middle = max(first, min(first + 60, len(whole) - 1))
    torn = whole[:first] + bytes(middle - first) + whole[middle:last]
    path.write_bytes(whole + torn)
    assert [one.id for one in history.read(path)] == ["t1"]
    history.append(Disk(), path, event(2))
    assert [one.id for one in history.read(path)] == ["t1", "t2"]
    assert path.read_bytes().startswith(whole)


def test_events_of_one_write_are_read_as_any(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    events = [event(number) for number in range(1, 5)]
    history.append(Disk(), path, *events)
    assert list(history.read(path)) == events
    assert list(history.read_backwards(path)) == events[::-1]


def test_torn_events_of_one_write_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(Disk(), path, event(1))
    begin = path.stat().st_size
    history.append(Disk(), path, *(event(number) for number in range(2, 100)))
    torn = bytearray(path.read_bytes())
    torn[begin + 4096 : begin + 8192] = bytes(4096)
    path.write_bytes(torn)
    assert [one.id for one in history.read(path)] == ["t1"]


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


@pytest.mark.parametrize("line", [b"{}", b"not json", b'{"schema":1,"model":"m"}'])
def test_a_whole_line_that_is_no_event_is_damage(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(RepositoryDamaged, match="line 1"):
        list(history.read(path))


def test_zeros_before_the_last_line_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(Disk(), path, event(1))
    whole = path.read_bytes()
    path.write_bytes(bytes(5) + whole[5:] + whole)
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


# long histories -------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.sampled_from([0, 1, 300, 5_000, 262_000, 262_144, 700_000]), max_size=12),
    torn=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_a_history_is_the_same_read_from_either_end(lengths: list[int], torn: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.jsonl"
        events = [
            msgspec.structs.replace(event(number, model=f"m{number % 2}"), why="x" * length)
            for number, length in enumerate(lengths)
        ]
        with path.open("wb") as stream:
            for one in events:
                stream.write(msgspec.json.encode(one) + b"\n")
            if torn:
                stream.write(msgspec.json.encode(event(99))[:-3])
        for model in (None, "m0", "m1", "m2"):
            mine = [one for one in events if model in {None, one.model}]
            assert list(history.read(path, model=model)) == mine
            assert list(history.read_backwards(path, model=model)) == mine[::-1]
        past = history.Past(path, ("m0", "m1", "m2"))
        for model in ("m1", "m0", "m2", "m1"):
            mine = [one for one in events if model == one.model]
            assert list(past.events(model)) == mine[::-1]
        assert [history.knows(path, f"t{one}") for one in range(len(events))] == [True] * len(
            events
        )
        assert not history.knows(path, "t99")


@pytest.mark.parametrize("kind", ["damaged", "newer", "empty"])
def test_a_line_that_cannot_be_read_is_named_from_either_end(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    line = msgspec.json.encode(event(1)) + b"\n"
    bad = {"damaged": b"{\n", "newer": line.replace(b'"schema":1', b'"schema":9'), "empty": b"\n"}
    path.write_bytes(line * 3 + bad[kind] + line * 2)
    error = NewerFormat if kind == "newer" else RepositoryDamaged
    for read in (history.read, history.read_backwards):
        with pytest.raises(error, match=r"line 4\b"):
            list(read(path))
    assert len(list(islice(history.read_backwards(path), 2))) == 2


def test_a_line_of_one_model_stops_only_those_who_ask_for_it(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    bad = b'{"schema":1,"model":"bad"}\n'
    path.write_bytes(msgspec.json.encode(event(1)) + b"\n" + bad + bad)
    past = history.Past(path, ("m", "bad"))
    assert [one.id for one in past.events("m")] == ["t1"]
    with pytest.raises(RepositoryDamaged, match=r"line 3\b"):
        list(past.events("bad"))


LONG_HISTORY_BYTES = 20_000_000
"""The history of `long_history` is longer."""


@pytest.fixture(scope="module")
def long_history(tmp_path_factory: pytest.TempPathFactory) -> OpenRepository:
    """A repository of a model with three versions, two that others own, and 100,000 lines of history."""
    folder = tmp_path_factory.mktemp("long")
    repo, _ = servingrepo.init(folder / "repo")
    for number in range(3):
        for model in ("m", "other"):
            run = folder / f"{model}{number}"
            write_export(run / "saved_model", slope=float(number), offset=float(len(model)))
            repo.promote(run, model=model, smoke=False)
    path = repo.value.layout.history
    recent = path.read_bytes()
    old = msgspec.structs.replace(
        event(0, (1,), (2,)),
        why="nightly",
        run="/srv/runs/2026_05_10_baseline",
        proof="docker (2.19.1): 3 passed",
    )
    with path.open("wb") as stream:
        for number in range(100_000):
            one = msgspec.structs.replace(old, id=f"t{number}", model=("m", "other")[number % 2])
            stream.write(msgspec.json.encode(one) + b"\n")
        stream.write(recent)
    assert path.stat().st_size > LONG_HISTORY_BYTES
    return repo


def promote_another(repo: OpenRepository) -> None:
    run = repo.root.parent / "another"
    write_export(run / "saved_model", slope=9.0, offset=9.0)
    repo.promote(run, model="m", smoke=False)


@pytest.mark.parametrize(
    "ask",
    [
        lambda repo: list(repo.history(limit=20)),
        lambda repo: list(repo.history("m", limit=20)),
        lambda repo: repo.list(),
        lambda repo: repo.status(),
        lambda repo: repo.show_version("m@previous"),
        lambda repo: repo.prune("m", keep=Keep(last=1), dry_run=True),
        lambda repo: repo.hold("other", message="a test"),
        lambda repo: repo.rollback("m"),
        promote_another,
        lambda repo: next(history.moves_backwards(repo.value.layout.history, model="other")),
    ],
)
def test_of_a_history_of_100_000_lines_only_the_end_is_read(
    ask: Callable[[OpenRepository], object], long_history: OpenRepository
) -> None:
    before = bytes_read()
    ask(long_history)
    assert bytes_read() - before < 2_000_000 < LONG_HISTORY_BYTES


def test_an_event_is_looked_for_in_one_pass(long_history: OpenRepository) -> None:
    path = long_history.value.layout.history
    before = bytes_read()
    assert not history.knows(path, "never was")
    assert bytes_read() - before < path.stat().st_size + 2_000_000


@pytest.mark.parametrize(
    "ask",
    [
        lambda repo: repo.prune(keep=Keep(labelled=("*",)), dry_run=True),
        lambda repo: repo.lineage(),
        lambda repo: [
            list(moves)
            for past in [history.Past(repo.value.layout.history, ("m", "other", "third"))]
            for moves in map(past.moves, ("third", "other", "m"))
        ],
    ],
)
def test_the_history_of_many_models_is_read_once(
    ask: Callable[[OpenRepository], object], long_history: OpenRepository
) -> None:
    before = bytes_read()
    ask(long_history)
    assert bytes_read() - before < long_history.value.layout.history.stat().st_size + 2_000_000
