from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import servingrepo
from servingrepo.errors import NoSuchVersion, NumberUsed, StorageFailed
from servingrepo.repository.pruning import empty_trash
from servingrepo.repository.repository import load_state, record_numbers, save_state
from servingrepo.repository.retention import Keep
from servingrepo.repository.trash import being_deleted, trashed_versions, tree_bytes
from servingrepo.repository.version_lock import using
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from tests.cli.processes import started
from tests.repository.test_recovery import die

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


@pytest.fixture
def pruned(repo: OpenRepository, release: Release) -> OpenRepository:
    """A repository with 1 and 2 of `m` in the trash, 3 and 4 on disk, 4 served."""
    for slope in (1.0, 2.0, 3.0, 4.0):
        release(slope)
    repo.prune("m", keep=Keep(last=1))
    return repo


def left(repo: OpenRepository) -> list[str]:
    return sorted(path.name for path in repo.value.layout.trash("m").iterdir())


def test_emptying_deletes_versions_with_their_records_and_says_what_was_freed(
    pruned: OpenRepository,
) -> None:
    size = tree_bytes(pruned.value.layout.trash("m"))
    done = pruned.prune(empty_trash=True)
    assert [(one.version, one.deleted) for one in done.emptied] == [(1, True), (2, True)]
    assert 0 < done.freed <= size
    assert (done.models, done.trash_size, left(pruned)) == ((), 0, [])
    assert record_numbers(pruned.value, "m") == (3, 4)
    last = list(pruned.history("m"))[-1]
    assert (last.action, last.versions) == ("empty-trash", (1, 2))
    assert pruned.recover() == ()
    with pytest.raises(NoSuchVersion, match="no version 1 of m"):
        pruned.show_version("m@1")


def test_numbers_are_not_used_again_after_the_trash_was_emptied(
    repo: OpenRepository, release: Release
) -> None:
    for slope in (1.0, 2.0, 3.0):
        release(slope)
    repo.rollback("m")  # 3 is bad now
    repo.prune("m", keep=Keep(labelled=("x",)))
    state = load_state(repo.value, "m")
    assert state is not None
    # A state file that never knew the number, as from a backup: the record alone does.
    save_state(repo.value, msgspec.structs.replace(state, highest=0))
    repo.prune("m", empty_trash=True)
    assert record_numbers(repo.value, "m") == (1, 2)
    with pytest.raises(NumberUsed):
        release(9.0, version=3)
    assert release(9.0) == 4


def test_emptying_an_empty_trash_writes_nothing(pruned: OpenRepository) -> None:
    pruned.prune(empty_trash=True)
    history = pruned.value.layout.history.read_bytes()
    done = pruned.prune(empty_trash=True)
    assert (done.emptied, done.freed) == ((), 0)
    assert pruned.value.layout.history.read_bytes() == history


def test_a_dry_run_deletes_nothing_and_says_what_it_would_free(pruned: OpenRepository) -> None:
    before = left(pruned)
    done = pruned.prune(empty_trash=True, dry_run=True)
    assert done.freed > 0
    assert left(pruned) == before
    assert pruned.prune(empty_trash=True).freed == done.freed


def test_only_what_is_older_goes(pruned: OpenRepository) -> None:
    done = pruned.prune(empty_trash=True, older_than=timedelta(days=7))
    assert [(one.version, one.deleted) for one in done.emptied] == [(1, False), (2, False)]
    assert done.emptied[0].reason.startswith("in the trash only since 20")
    later = msgspec.structs.replace(
        pruned.value, clock=lambda: datetime.now(UTC) + timedelta(days=8)
    )
    rows = empty_trash(later, older_than=timedelta(days=7))
    assert [one.deleted for one in rows] == [True, True]


def test_what_went_there_by_a_clock_ahead_of_now_is_not_old(pruned: OpenRepository) -> None:
    past = msgspec.structs.replace(
        pruned.value, clock=lambda: datetime.now(UTC) - timedelta(days=900)
    )
    rows = empty_trash(past, older_than=timedelta(hours=1))
    assert [one.deleted for one in rows] == [False, False]


def test_one_prune_can_empty_the_trash_it_fills(pruned: OpenRepository, release: Release) -> None:
    release(5.0)
    done = pruned.prune(keep=Keep(last=1), empty_trash=True)
    assert [one.version for one in done.emptied] == [1, 2, 3]
    assert [event.action for event in pruned.history("m")][-2:] == ["prune", "empty-trash"]


def test_a_version_that_is_being_verified_stays(pruned: OpenRepository) -> None:
    with using(pruned.value, "m", 1):
        done = pruned.prune(empty_trash=True)
    assert [(one.version, one.deleted) for one in done.emptied] == [(1, False), (2, True)]
    assert done.emptied[0].reason == "in use: another command verifies or restores it"


def test_what_is_not_ours_in_the_trash_is_left_alone(pruned: OpenRepository) -> None:
    trash = pruned.value.layout.trash("m")
    (trash / "notes").mkdir()
    (trash / "7-notes").write_text("")
    (trash / "8-20260510T120000Z-00000000").symlink_to("notes")
    pruned.prune(empty_trash=True)
    assert left(pruned) == ["7-notes", "8-20260510T120000Z-00000000", "notes"]


def test_a_trashed_directory_without_a_record_can_be_deleted(pruned: OpenRepository) -> None:
    pruned.value.layout.record("m", 1).unlink()
    assert [one.deleted for one in pruned.prune(empty_trash=True).emptied] == [True, True]
    assert left(pruned) == []


def test_other_models_trash_stays(pruned: OpenRepository, release: Release) -> None:
    for slope in (1.0, 2.0, 3.0):
        release(slope, model="other")
    pruned.prune("other", keep=Keep(last=1))
    pruned.prune("other", empty_trash=True)
    assert [one.version for one in trashed_versions(pruned.value.layout, "m")] == [1, 2]
    assert trashed_versions(pruned.value.layout, "other") == ()


@pytest.mark.parametrize("step", ["condemn.before-rename@1", "condemn.after-rename@1"])
def test_a_deletion_that_dies_at_its_first_rename_leaves_each_version_whole_or_gone(
    step: str, pruned: OpenRepository
) -> None:
    die(pruned, step, "prune", empty_trash=True)
    pruned.recover()
    restorable = [one.version for one in trashed_versions(pruned.value.layout, "m")]
    assert restorable == ([1, 2] if "before" in step else [2])
    assert record_numbers(pruned.value, "m") == (*restorable, 3, 4)
    for version in restorable:
        pruned.restore(f"m@{version}")
    gone = [event.versions for event in pruned.history("m") if event.action == "empty-trash"]
    assert gone == ([] if "before" in step else [(1,)])


def test_a_deletion_that_dies_in_the_middle_of_a_version_is_finished_by_recovery(
    pruned: OpenRepository,
) -> None:
    die(pruned, "remove-tree.before@2", "prune", empty_trash=True)
    half = being_deleted(pruned.value.layout, "m")
    assert [one.version for one in half] == [1, 2]
    assert [sum(1 for _ in Path(one.path).iterdir()) for one in half] == [2, 3], "a part is gone"
    assert trashed_versions(pruned.value.layout, "m") == (), "nothing half deleted is restorable"
    with pytest.raises(NoSuchVersion, match="is not in the trash"):
        pruned.restore("m@1")
    done = [(one.command, one.version) for one in pruned.recover()]
    assert done[-2:] == [("empty-trash", 1), ("empty-trash", 2)]
    assert left(pruned) == []
    assert [event.action for event in pruned.history("m")].count("empty-trash") == 1


def test_a_deletion_is_finished_in_a_model_whose_folder_is_a_link(
    pruned: OpenRepository, tmp_path: Path
) -> None:
    folder = pruned.value.layout.model("m")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    die(pruned, "remove-tree.before@1", "prune", empty_trash=True)
    pruned.recover()
    assert left(pruned) == []


def test_recovery_keeps_the_record_of_a_version_that_is_on_disk_or_restorable(
    pruned: OpenRepository,
) -> None:
    trash = pruned.value.layout.trash("m")
    for number in (1, 4):
        (trash / f".deleting-{number}-20260510T120000Z-00000000").mkdir()
    pruned.recover()
    assert record_numbers(pruned.value, "m") == (1, 2, 3, 4)
    assert [name.partition("-")[0] for name in left(pruned)] == ["1", "2"]


def test_nobody_waits_for_a_deletion_and_nobody_takes_its_files_away(
    pruned: OpenRepository, tmp_path: Path
) -> None:
    deleting = started(
        *("--root", pruned.root, "prune", "--empty-trash"),
        failpoint="remove-tree.before",
        folder=tmp_path,
    )
    try:
        assert pruned.rollback("m").after == (3,), "the lock is free while files are removed"
        assert pruned.recover() == ()
        assert [one.version for one in being_deleted(pruned.value.layout, "m")] == [1, 2]
    finally:
        deleting.kill()
        deleting.communicate()
    assert [one.version for one in pruned.recover() if one.version] == [1, 2]
    assert left(pruned) == []


def test_files_that_cannot_be_removed_keep_nobody_from_writing(pruned: OpenRepository) -> None:
    failing = servingrepo.open(
        pruned.root, disk=Disk(faults=Faults.parse("remove-tree.before=EACCES"))
    )
    with pytest.raises(StorageFailed) as caught:
        failing.prune(empty_trash=True)
    assert "gone for good all the same: m@1, m@2" in caught.value.problems[0]
    assert trashed_versions(pruned.value.layout, "m") == ()
    assert "could not be removed" in failing.recover()[-1].outcome
    assert failing.rollback("m").after == (3,)
    assert left(pruned) != []
    assert "deletion was finished" in pruned.recover()[-1].outcome
    assert left(pruned) == []
