from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import ConfigEdited, StorageFailed
from servingrepo.repository import journal
from servingrepo.repository.journal import Intent
from servingrepo.repository.publication import reserve, stage
from servingrepo.repository.recovery import Recovered
from servingrepo.repository.repository import me, new_txid
from servingrepo.repository.transaction import new_event, recorded, writing
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.storage.tree import read_tree
from servingrepo.testing.exports import write_export
from tests.support import command

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release

DYING = """
import sys
import servingrepo
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
repo = servingrepo.open(sys.argv[1], disk=Disk(faults=Faults.parse(sys.argv[2])))
getattr(repo, sys.argv[3])(*sys.argv[4:-1], **eval(sys.argv[-1]))
"""


def die(repo: OpenRepository, step: str, verb: str, *arguments: str, **options: object) -> None:
    """Kill a command of another process at one of its steps."""
    done = subprocess.run(
        [sys.executable, "-c", DYING, repo.root, f"{step}=kill", verb, *arguments, repr(options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr


def die_promoting(repo: OpenRepository, tmp_path: Path, step: str) -> None:
    write_export(tmp_path / "run", slope=77.0, variables=True)
    die(repo, step, "promote", str(tmp_path / "run"), model="m", smoke=False)


def outcomes(repo: OpenRepository) -> list[tuple[str, str, int | None]]:
    return [(one.command, one.outcome.partition(":")[0], one.version) for one in repo.recover()]


def test_there_is_nothing_to_recover_after_commands_that_ended(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    repo.rollback("m")
    assert repo.recover() == ()


def test_a_promotion_that_died_before_c1_is_dropped_with_record_and_staging(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    die_promoting(repo, tmp_path, "record.done")
    assert repo.value.layout.record("m", 2).exists()
    assert list((repo.value.layout.model("m") / ".staging").iterdir())
    assert outcomes(repo) == [("promote", "it had not happened", 2)]
    assert not repo.value.layout.record("m", 2).exists()
    assert list((repo.value.layout.model("m") / ".staging").iterdir()) == []
    assert repo.recover() == ()
    assert release(2.0) == 3


def test_a_promotion_that_died_after_c1_exists_and_is_not_served(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    repo.hold("m")
    repo.release_hold("m")  # events without pins must not hide what was served before
    die_promoting(repo, tmp_path, "c1.after-rename")
    assert outcomes(repo) == [("promote", "it had happened", 2)]
    details = repo.show("m")
    assert details.served == 1
    assert [row.version for row in details.versions] == [2, 1]
    last = list(repo.history("m"))[-1]
    assert (last.action, last.version, last.before, last.after) == ("promote", 2, (1,), (1,))
    assert last.recovered
    assert last.proof == "not checked"
    assert last.run == str(tmp_path / "run")
    assert repo.verify("m@2")[0].ok


@pytest.mark.tf
def test_history_says_the_same_of_a_promotion_that_died_as_of_one_that_ended(
    repo: OpenRepository, tmp_path: Path
) -> None:
    runs = [tmp_path / "code" / name for name in ("ends", "dies")]
    for slope, run in enumerate(runs):
        write_export(run, slope=float(slope))
    for arguments in (["init"], ["add", "."], ["commit", "-m", "one"]):
        who = ("-c", "user.name=Eva", "-c", "user.email=eva@example.org")
        subprocess.run(["git", *who, "-C", runs[0].parent, *arguments], check=True)
    repo.promote(runs[0], model="m", engine="embedded")
    die(repo, "c1.done", "promote", str(runs[1]), model="m", engine="embedded")
    repo.recover()
    ended, died = repo.history("m")
    assert (died.recovered, died.proof, died.code) == (True, ended.proof, ended.code)
    assert ended.proof.endswith(": 1 passed")
    assert ended.code


def test_a_promotion_that_died_after_c2_is_served_and_can_be_rolled_back(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    repo.hold("m")
    repo.release_hold("m")
    die_promoting(repo, tmp_path, "c2.after-rename")
    assert outcomes(repo) == [("promote", "it had happened", 2)]
    last = list(repo.history("m"))[-1]
    assert (last.before, last.after) == ((1,), (2,))
    assert repo.rollback("m").after == (1,)


def test_the_next_writer_recovers_by_itself(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    release(2.0)
    die_promoting(repo, tmp_path, "staged")
    assert repo.rollback("m").after == (1,)
    assert list(repo.value.layout.journal.iterdir()) == []
    assert list((repo.value.layout.model("m") / ".staging").iterdir()) == []


def test_a_rollback_that_died_after_c2_has_its_bad_mark_and_history_finished(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    die(repo, "switch.after-c2", "rollback", "m", message="worse")
    assert repo.show("m").served == 1
    assert repo.list()[0].bad == ()
    assert outcomes(repo) == [("rollback", "it had happened", None)]
    assert repo.list()[0].bad == (2,)
    last = list(repo.history("m"))[-1]
    assert (last.action, last.marked_bad, last.why) == ("rollback", 2, "worse")
    assert last.recovered


def test_a_rollback_that_died_before_c2_has_not_happened(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    die(repo, "c2.before-rename", "rollback", "m")
    found = repo.recover()
    assert found[0].outcome == "it had not happened: dropped"
    assert repo.show("m").served == 2
    assert repo.list()[0].bad == ()
    assert [one.action for one in repo.history("m")] == ["promote", "promote"]


@pytest.mark.parametrize(
    "step", ["staged", "c1.done", "c2.before-rename", "c2.done", "history.before-append"]
)
def test_recovery_never_changes_what_is_served(
    step: str, repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    release(2.0)
    die_promoting(repo, tmp_path, step)
    served = repo.value.layout.config.read_bytes()
    assert repo.recover()
    assert repo.value.layout.config.read_bytes() == served


def test_a_living_command_is_left_alone(repo: OpenRepository, tmp_path: Path) -> None:
    export = write_export(tmp_path / "run")
    with reserve(repo.value, model="m", version=None) as place:
        stage(repo.value, place, read_tree(export, boundary=export))
        assert repo.recover() == ()
        assert (place.export / "saved_model.pb").exists()
        assert len(list(repo.value.layout.journal.iterdir())) == 1


def test_staging_that_nobody_owns_goes_and_an_unused_model_folder_with_it(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    for model in ("m", "fresh"):
        (repo.value.layout.staging(model, new_txid(repo.value)) / "1").mkdir(parents=True)
    assert [one.outcome for one in repo.recover()] == ["left staging directory removed"] * 2
    assert not repo.value.layout.model("fresh").exists()
    assert repo.verify("m")[0].ok


def test_what_others_keep_in_a_staging_folder_is_left_alone(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    kept = repo.value.layout.staging("foreign", "precious") / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    assert repo.recover() == ()
    assert kept.read_text() == "mine"


def test_temporary_files_that_a_kill_left_go(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    layout = repo.value.layout
    left = [
        layout.models / ".models.config.tmp",
        layout.own / ".format.json.tmp",
        layout.states / ".m.json.tmp",
        layout.records("m") / ".2.json.tmp",
        layout.journal / ".t.json.tmp",
    ]
    for path in left:
        path.write_bytes(b"{")
    kept = layout.models / ".somebody-elses.tmp"
    kept.write_bytes(b"")
    assert {one.outcome for one in repo.recover()} == {"temporary file removed"}
    assert [path for path in left if path.exists()] == []
    assert kept.exists()


def test_the_next_writer_sweeps_records_after_a_dead_promotion(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    die_promoting(repo, tmp_path, "record.before-rename")
    left = repo.value.layout.records("m") / ".2.json.tmp"
    assert left.exists()
    # Where no name can be left in the lock, the intent alone tells of the death.
    repo.value.layout.lock.write_bytes(b"")
    repo.hold("m", message="look")
    assert not left.exists()


def test_the_next_writer_sweeps_folders_of_models_after_a_death_under_the_lock(
    repo: OpenRepository, release: Release
) -> None:
    for slope in (1.0, 2.0, 3.0):
        release(slope)
    prune = "from servingrepo.repository.retention import Keep\n" + DYING.replace(
        "eval(sys.argv[-1])", "{'keep': Keep(last=1)}"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            prune,
            repo.root,
            "make-directory.before-rename=kill",
            "prune",
            "m",
            "",
        ],
        check=False,
    )
    assert done.returncode == -9
    model = repo.value.layout.model("m")
    assert list(model.glob("..trash.*.tmp"))
    assert not list(repo.value.layout.journal.iterdir())
    repo.hold("m", message="look")
    assert not list(model.glob("..trash.*.tmp"))


def test_links_among_the_models_do_not_stop_recovery(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    elsewhere = tmp_path / "elsewhere" / ".staging" / "20260510T101112Z-0123abcd"
    elsewhere.mkdir(parents=True)
    (repo.root / "models" / "loop").symlink_to("loop")
    (repo.root / "models" / "far").symlink_to(tmp_path / "elsewhere")
    assert repo.recover() == ()
    assert elsewhere.exists()


def test_foreign_directories_and_files_of_others_stay(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    (repo.value.layout.model("m") / "9").mkdir()
    (repo.value.layout.models / "README").write_text("ours")
    (repo.value.layout.models / "empty").mkdir()
    assert repo.recover() == ()
    assert (repo.value.layout.model("m") / "9").is_dir()
    assert (repo.value.layout.models / "README").exists()


def test_a_change_of_the_server_root_that_died_is_finished(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    died = command(
        *("--root", repo.root, "config", "write", "--server-root", "/srv"),
        env={"SERVINGREPO_FAILPOINTS": "format.done@1=kill"},
    )
    assert died.code == -signal.SIGKILL
    again = servingrepo.open(repo.root)
    assert again.show("m").elsewhere == "", "where it was before is no other place"
    assert [one.command for one in again.recover()] == ["config write"]
    assert 'base_path: "/srv/m"' in again.value.layout.config.read_text()
    again = servingrepo.open(repo.root)
    assert again.value.server_roots_before == ()
    assert again.show("m").served == 1
    assert again.recover() == ()


def test_the_copy_of_the_config_follows_the_config_but_not_an_edit(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    layout = repo.value.layout
    layout.last_config.write_text("behind")
    repo.recover()
    assert layout.last_config.read_text() == layout.config.read_text()
    written = layout.config.read_text()
    layout.config.write_text(written + "# mine\n")
    repo.recover()
    assert layout.last_config.read_text() == written
    assert layout.config.read_text() == written + "# mine\n"


def test_recovery_works_beside_an_edited_or_unreadable_config(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    die_promoting(repo, tmp_path, "c1.done")
    config = repo.value.layout.config
    config.write_text("nonsense {")
    assert [one.version for one in repo.recover()] == [2]
    assert config.read_text() == "nonsense {"
    assert list(repo.value.layout.journal.iterdir()) == []
    assert len(list(repo.history("m"))) == 2


def test_an_error_after_the_change_says_that_it_has_happened(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    broken = servingrepo.open(
        repo.root, disk=Disk(faults=Faults.parse("history.before-append@1=EIO"))
    )
    with pytest.raises(StorageFailed) as caught:
        broken.rollback("m")
    assert any("has happened all the same" in one for one in caught.value.problems)
    assert repo.show("m").served == 1
    assert [one.action for one in repo.history("m")][-1] == "rollback"
    assert repo.recover() == ()


def test_an_error_before_the_change_does_not_say_so(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    release(2.0)
    broken = servingrepo.open(repo.root, disk=Disk(faults=Faults.parse("switch.before-c2=EIO")))
    with pytest.raises(StorageFailed) as caught:
        broken.rollback("m")
    assert not caught.value.problems
    assert repo.show("m").served == 2


def test_what_a_block_did_before_it_raised_is_settled(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    event = new_event(repo.value, txid=new_txid(repo.value), action="unserve", model="m")
    with writing(repo.value), pytest.raises(ZeroDivisionError), recorded(repo.value, event):
        raise ZeroDivisionError
    assert list(repo.value.layout.journal.iterdir()) == []
    assert len(list(repo.history())) == 1


def test_an_intent_is_settled_once_however_often_recovery_dies(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    die(repo, "switch.after-c2", "rollback", "m")
    for step in ("state.done", "history.before-append", "settle.before-intent-removal"):
        die(repo, step, "recover")
    assert outcomes(repo) == [("rollback", "it had happened", None)]
    assert [one.action for one in repo.history("m")] == ["promote", "promote", "rollback"]


def test_a_recovered_intent_of_an_unknown_model_is_dropped(repo: OpenRepository) -> None:
    intent = Intent(txid="t", command="promote", owner=me(), model="gone", version=4)
    with (
        pytest.raises(ZeroDivisionError),
        journal.declare(Disk(), repo.value.layout.intent("t"), intent),
    ):
        raise ZeroDivisionError
    assert repo.recover() == (Recovered("t", "promote", "gone", 4, "it had not happened: dropped"),)


def test_an_edited_config_is_still_refused_after_recovery(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    die(repo, "c2.before-rename", "rollback", "m")
    config = repo.value.layout.config
    config.write_text(config.read_text() + "# mine\n")
    with pytest.raises(ConfigEdited):
        repo.rollback("m")
    assert list(repo.value.layout.journal.iterdir()) == []
