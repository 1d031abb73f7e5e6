"""Versions that are to be adopted, examined by this process and by children beside it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

from servingrepo.errors import SourceChanged
from servingrepo.repository.examination import (
    About,
    Answer,
    Question,
    children_for,
    examine,
    examine_all,
)
from servingrepo.repository.records import VersionRecord
from servingrepo.storage.lock import this_process
from servingrepo.storage.progress import silent
from servingrepo.testing.exports import write_export

ABOUT = About(txid="t", message="", by=this_process("a test"), dry_run=False)


@pytest.fixture
def questions(tmp_path: Path) -> list[Question]:
    """Versions of a model: the third is damaged, the fifth is not there."""
    for number in (*range(1, 5), *range(6, 200)):
        write_export(tmp_path / str(number), slope=float(number), variables=True)
    (tmp_path / "3" / "saved_model.pb").write_bytes(b"torn")
    return [
        Question(model="m", number=number, place=os.fsencode(tmp_path / str(number)), time="today")
        for number in range(1, 200)
    ]


def children() -> set[int]:
    """The child processes of this one, whichever thread started them."""
    found = [one.read_text() for one in Path("/proc/self/task").glob("*/children")]
    return {int(child) for text in found for child in text.split()}


def answers(questions: list[Question], *, kill: bool = False) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    before = children()  # other tests have children too, for all of a session

    def took(question: Question, answer: Answer) -> None:
        for child in children() - before if kill and not found else ():
            os.kill(child, signal.SIGKILL)
        assert question.number not in found
        found[question.number] = answer

    examine_all(ABOUT, questions, children=2, progress=silent, took=took)
    assert children() == before
    return found


def test_children_answer_as_this_process_does(questions: list[Question]) -> None:
    found = answers(questions)
    assert found == {one.number: examine(ABOUT, one) for one in questions}
    assert [number for number, one in found.items() if one.left] in ([3, 5], [5, 3])
    one = found[7].found
    assert one is not None
    record = msgspec.json.decode(one.record, type=VersionRecord)
    assert (record.version, record.created, record.size) == (7, "today", one.size)


def test_children_that_die_leave_nothing_out(questions: list[Question]) -> None:
    assert answers(questions, kill=True).keys() == {one.number for one in questions}


def test_what_is_refused_stops_all(questions: list[Question]) -> None:
    def took(question: Question, answer: Answer) -> None:
        raise SourceChanged("it changed")

    before = children()
    with pytest.raises(SourceChanged):
        examine_all(ABOUT, questions, children=2, progress=silent, took=took)
    assert children() == before


def test_a_few_versions_need_no_child() -> None:
    assert children_for(20) == 0
    assert children_for(100_000) < len(os.sched_getaffinity(0))


def test_progress_counts_every_byte_once(questions: list[Question]) -> None:
    counted: list[int] = []
    whole = [one for one in questions if one.number not in {3, 5}]

    def took(question: Question, answer: Answer) -> None:
        assert answer.found is not None
        expected.append(answer.found.size)

    expected: list[int] = []
    examine_all(ABOUT, whole, children=1, progress=counted.append, took=took)
    assert sum(counted) == sum(expected) > 0
