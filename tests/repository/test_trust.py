"""What others could have put into a repository: intents, records, links, modes and owners that are not ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.errors import NewerFormat, RepositoryDamaged
from servingrepo.repository import journal
from servingrepo.repository.journal import Intent
from servingrepo.repository.records import encode
from servingrepo.repository.repository import load_record, need_state
from servingrepo.storage.disk import Disk
from servingrepo.storage.lock import this_process
from tests.crash.forking import Forking
from tests.crash.state import broken_promises
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servingrepo.api import OpenRepository

TXID = "20260101T000000Z-0123abcd"
DIFFERS = 68
"""The exit code of `status` where something is not as it should be."""


@pytest.fixture
def repo(tmp_path: Path) -> OpenRepository:
    """A repository of two versions."""
    repo = new_repository(tmp_path / "repo")
    for number in (1, 2):
        run = run_with(tmp_path / f"run{number}", offset=float(number))
        repo.promote(run, model="m", smoke=False)
    return repo


def plant(repo: OpenRepository, **changes: object) -> Path:
    """Plant an intent of a promotion that died."""
    path = repo.value.layout.intent(TXID)
    owner = this_process("promote")
    intent = Intent(txid=TXID, command="promote", owner=owner, model="m", version=3)
    path.write_bytes(encode(msgspec.structs.replace(intent, **changes)))
    return path


# intents that cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"schema": 1}', b"[" * 100_000])
def test_an_unreadable_intent_does_not_keep_writers_out_and_is_set_aside(
    data: bytes, repo: OpenRepository
) -> None:
    path = repo.value.layout.intent(TXID)
    path.write_bytes(data)
    status = repo.status()
    assert any(str(path) in note for note in status.notes)
    assert repo.rollback("m").after == (1,)
    aside = path.with_name(path.name + journal.UNREADABLE)
    assert aside.read_bytes() == data
    assert not path.exists()
    status = repo.status()
    assert status.ok
    assert any(str(aside) in note for note in status.notes)
    assert repo.recover() == ()


def test_recover_says_what_it_set_aside(repo: OpenRepository) -> None:
    path = repo.value.layout.intent(TXID)
    path.write_bytes(b"{")
    (found,) = repo.recover()
    assert found.txid == TXID
    assert str(path) in found.outcome


def test_an_unreadable_intent_that_a_live_command_holds_is_not_touched(
    repo: OpenRepository,
) -> None:
    path = repo.value.layout.intent(TXID)
    owner = this_process("x")
    intent = Intent(txid=TXID, command="promote", owner=owner, model="m", version=3)
    with journal.declare(Disk(), path, intent):
        whole = path.read_bytes()
        path.write_bytes(b"{")
        with pytest.raises(RepositoryDamaged):
            repo.rollback("m")
        path.write_bytes(whole)
    assert repo.rollback("m").after == (1,)


@pytest.mark.parametrize("step", ["record.done", "c1.done", "c2.done"])
def test_a_promotion_whose_intent_cannot_be_read_is_settled_by_its_record(
    step: str, repo: OpenRepository, tmp_path: Path
) -> None:
    """It is killed there; then its intent rots."""
    before = repo.value.layout.history.read_bytes()
    run = run_with(tmp_path / "run3", offset=3.0)
    done = command(
        *("--root", repo.root, "promote", run, "--model", "m", "--no-smoke"),
        env={"SERVINGREPO_FAILPOINTS": f"{step}=kill"},
    )
    assert done.code == -9
    (intent,) = repo.value.layout.journal.glob("*.json")
    intent.write_bytes(intent.read_bytes()[:40])
    assert repo.recover()
    intent.with_name(intent.name + journal.UNREADABLE).unlink()
    assert broken_promises(repo.root, history_before=before) == []
    assert (3 in [row.version for row in repo.show("m").versions]) == (step != "record.done")
    assert [event.version for event in repo.history("m")].count(3) == (step != "record.done")


def test_an_intent_of_a_newer_format_still_keeps_writers_out(repo: OpenRepository) -> None:
    path = repo.value.layout.intent(TXID)
    path.write_bytes(b'{"schema": 99}')
    with pytest.raises(NewerFormat):
        repo.rollback("m")
    assert path.exists()


# intents that were planted --------------------------------------------------------------------------


def test_a_planted_intent_leads_nobody_out_of_the_repository(
    repo: OpenRepository, tmp_path: Path
) -> None:
    victim = tmp_path / "victim" / ".staging" / TXID / "precious"
    victim.parent.mkdir(parents=True)
    victim.write_text("precious")
    plant(repo, model="../../victim")
    repo.recover()
    assert victim.read_text() == "precious"
    other = tmp_path / "victim" / "also"
    other.mkdir()
    plant(repo, txid="../../../../victim/also")
    repo.recover()
    assert other.is_dir()


def test_a_planted_intent_takes_away_no_version_and_no_record(repo: OpenRepository) -> None:
    plant(repo, version=2)  # the record of version 2 names another transaction
    repo.recover()
    assert [row.version for row in repo.show("m").versions] == [2, 1]
    assert repo.show("m").served == 2
    assert all(one.ok for one in repo.verify())


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_an_intent_that_is_no_file_is_set_aside_unread(
    kind: str, repo: OpenRepository, tmp_path: Path
) -> None:
    path, victim = repo.value.layout.intent(TXID), tmp_path / "victim"
    victim.write_text("precious")
    match kind:
        case "link":
            path.symlink_to(victim)
        case "fifo":
            os.mkfifo(path)
        case _:
            path.mkdir()
    assert any("no regular file" in note for note in repo.status().notes)
    assert repo.rollback("m").after == (1,)
    assert victim.read_text() == "precious"


# records that were planted --------------------------------------------------------------------------


def test_a_record_in_the_place_of_another_is_damage(repo: OpenRepository) -> None:
    layout = repo.value.layout
    layout.record("m", 2).write_bytes(layout.record("m", 1).read_bytes())
    with pytest.raises(RepositoryDamaged, match="'m'@1"):
        load_record(repo.value, "m", 2)
    with pytest.raises(RepositoryDamaged):
        repo.verify("m@2")


def test_a_state_in_the_place_of_another_is_damage(repo: OpenRepository, tmp_path: Path) -> None:
    state = need_state(repo.value, "m")
    path = repo.value.layout.state("m")
    path.write_bytes(encode(msgspec.structs.replace(state, name="../../../escaped")))
    with pytest.raises(RepositoryDamaged, match="escaped"):
        repo.hold("m")
    assert not list(tmp_path.rglob("escaped*"))


# links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["model", "staging"])
def test_nothing_is_published_or_removed_through_a_link(
    which: str, repo: OpenRepository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    theirs = outside / (TXID if which == "staging" else f".staging/{TXID}")
    theirs.mkdir(parents=True)
    (theirs / "precious").write_text("precious")
    base = repo.value.layout.model("new")
    if which == "model":
        base.symlink_to(outside)
    else:
        base.mkdir()
        (base / ".staging").symlink_to(outside)
    with pytest.raises(RepositoryDamaged, match="is a link"):
        repo.promote(run_with(tmp_path / "run3", offset=3.0), model="new", smoke=False)
    plant(repo, model="new", version=1)
    repo.recover()
    assert (theirs / "precious").read_text() == "precious"
    assert sorted(path.name for path in outside.rglob("*")) == sorted(
        {"precious", TXID, *([".staging"] if which == "model" else [])}
    )


def test_a_history_that_is_a_link_is_not_written_through(
    repo: OpenRepository, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    repo.value.layout.history.unlink()
    repo.value.layout.history.symlink_to(victim)
    assert any("is a link" in note for note in repo.status().notes)
    with pytest.raises(Exception, match="history") as caught:
        repo.hold("m")
    assert type(caught.value).__name__ == "StorageFailed"
    assert victim.read_text() == "precious"


# modes and owners -----------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_whatever_the_umask_everybody_may_read_and_nobody_else_write(
    umask: int, tmp_path: Path
) -> None:
    run = run_with(tmp_path / "run", offset=1.0, assets={"a": b"a\n"})
    before = os.umask(umask)
    try:
        repo = new_repository(tmp_path / "repo")
        repo.promote(run, model="m", smoke=False)
        repo.hold("m", message="x")
        modes = {
            path.relative_to(repo.root): path.stat().st_mode & 0o7777
            for path in (repo.root, *repo.root.rglob("*"))
        }
    finally:
        os.umask(before)
    assert {str(path): oct(mode) for path, mode in modes.items()} == {
        str(path): oct(0o755 if (repo.root / path).is_dir() else 0o644) for path in modes
    }


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_an_intent_is_for_all_to_read_whatever_the_umask(umask: int, repo: OpenRepository) -> None:
    path = repo.value.layout.intent(TXID)
    intent = Intent(txid=TXID, command="serve", owner=this_process("x"), model="m")
    before = os.umask(umask)
    try:
        with journal.declare(Disk(), path, intent):
            assert path.stat().st_mode & 0o7777 == 0o644
    finally:
        os.umask(before)


def test_status_says_what_everybody_may_write_and_whose_it_is_not(repo: OpenRepository) -> None:
    assert repo.status().notes == ()
    layout = repo.value.layout
    layout.journal.chmod(0o777)
    layout.config.chmod(0o666)
    layout.states.chmod(0o775)  # shared by a group on purpose
    notes = "\n".join(repo.status().notes)
    assert f"chmod o-w {layout.journal}" in notes
    assert f"chmod o-w {layout.config}" in notes
    assert str(layout.states) + "\n" not in notes + "\n"
    layout.journal.chmod(0o755)
    layout.config.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(layout.own, 1234, 1234)
        os.chown(layout.state("m"), 4321, 4321)
        (note,) = repo.status().notes
        assert note == f"{layout.state('m')} belongs to uid 4321, and the repository to uid 1234"
    assert repo.status().ok


# what is no file ------------------------------------------------------------------------------------


PLACES = (
    *("models/models.config", "servingrepo.toml", ".servingrepo/models.config"),
    *(".servingrepo/format.json", ".servingrepo/models/m.json", ".servingrepo/spare"),
    *(".servingrepo/models/m/2.json", ".servingrepo/history.jsonl", ".servingrepo/lock"),
    *("models/.models.config.tmp", ".servingrepo/models/.m.json.tmp"),
)


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    with Forking(tmp_path_factory.mktemp("forking") / "said") as process:
        yield process


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *((place, "fifo") for place in PLACES),
        *((place, ("device", "directory")[number % 2]) for number, place in enumerate(PLACES)),
    ],
)
def test_what_others_put_in_the_place_of_a_file_is_refused_or_passed_over_and_waited_for_by_nobody(
    place: str, kind: str, repo: OpenRepository, forking: Forking
) -> None:
    path, layout = repo.root / place, repo.value.layout
    path.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/full")  # it gives zeros without end, and takes nothing
        case _:
            path.mkdir()
    for arguments in (
        *(("list",), ("status",), ("show", "m@2"), ("history",), ("verify", "m@2")),
        *(("hold", "m"), ("rollback", "m"), ("prune", "m", "--keep-within", "1d")),
    ):
        code, said = forking.run("--root", str(repo.root), *arguments)
        assert code in {0, DIFFERS} or 30 <= code < 60, (arguments, code, said)
        assert "Traceback" not in said
        assert code < 50 or path.name in said, said
    assert all(layout.version("m", one).is_dir() for one in (1, 2))
