from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NewerFormat, NoSpace, RepositoryDamaged, StorageFailed
from servingrepo.repository import journal
from servingrepo.repository.journal import Intent
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.storage.lock import this_process

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from servingrepo.repository import journal
from servingrepo.repository.journal import Intent
from servingrepo.storage.disk import Disk
from servingrepo.storage.lock import this_process
intent = Intent(txid="other", command="promote", owner=this_process("x"), model="m", version=3)
with journal.declare(Disk(), Path(sys.argv[1]) / "other.json", intent):
    print("declared", flush=True)
    time.sleep(60)
"""


def intent(txid: str) -> Intent:
    return Intent(txid=txid, command="serve", owner=this_process("x"), model="m")


def test_an_intent_is_there_and_alive_during_the_block_and_gone_after_it(tmp_path: Path) -> None:
    with journal.declare(Disk(), tmp_path / "a.json", intent("a")):
        assert journal.read_all(tmp_path) == ((intent_on_disk(tmp_path, "a"), True),)
    assert list(tmp_path.iterdir()) == []


def intent_on_disk(folder: Path, txid: str) -> Intent:
    found = {one.txid: one for one, _ in journal.read_all(folder)}
    return found[txid]


def test_an_intent_whose_block_raised_stays_and_is_dead(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        journal.declare(Disk(), tmp_path / "a.json", intent("a")),
    ):
        raise ZeroDivisionError
    assert [(one.txid, alive) for one, alive in journal.read_all(tmp_path)] == [("a", False)]


def test_the_intent_of_another_process_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "declared\n"
        assert [(one.version, alive) for one, alive in journal.read_all(tmp_path)] == [(3, True)]
    finally:
        process.kill()
        process.communicate()
    assert [alive for _, alive in journal.read_all(tmp_path)] == [False]


def test_intents_are_read_oldest_first(tmp_path: Path) -> None:
    with (
        journal.declare(Disk(), tmp_path / "2.json", intent("2")),
        journal.declare(Disk(), tmp_path / "1.json", intent("1")),
    ):
        assert [one.txid for one, _ in journal.read_all(tmp_path)] == ["1", "2"]


@pytest.mark.parametrize("step", ["intent.before-write", "intent.before-rename"])
def test_an_intent_that_cannot_be_written_is_an_error_and_leaves_nothing(
    step: str, tmp_path: Path
) -> None:
    disk = Disk(faults=Faults.parse(f"{step}=ENOSPC"))
    with pytest.raises(NoSpace), journal.declare(disk, tmp_path / "a.json", intent("a")):
        pytest.fail("the block must not be entered")
    assert list(tmp_path.iterdir()) == []


def test_an_intent_is_not_written_over_what_lies_there(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    (tmp_path / ".a.json.tmp").symlink_to(victim)
    with pytest.raises(StorageFailed), journal.declare(Disk(), tmp_path / "a.json", intent("a")):
        pytest.fail("the block must not be entered")
    assert victim.read_bytes() == b"keep"


def test_an_intent_that_cannot_be_removed_is_left_to_the_next_writer(tmp_path: Path) -> None:
    disk = Disk(faults=Faults.parse("remove-file.before=EIO"))
    with journal.declare(disk, tmp_path / "a.json", intent("a")):
        pass
    assert [alive for _, alive in journal.read_all(tmp_path)] == [False]


def test_an_intent_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"schema": 2}')
    with pytest.raises(NewerFormat, match=r"a\.json"):
        journal.read_all(tmp_path)


def test_a_damaged_intent_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"{")
    with pytest.raises(RepositoryDamaged, match=r"a\.json"):
        journal.read_all(tmp_path)


def test_a_journal_that_is_not_there_has_no_intents(tmp_path: Path) -> None:
    assert journal.read_all(tmp_path / "gone") == ()
