from __future__ import annotations

import shutil
import stat
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

import servingrepo
from servingrepo.errors import (
    ConfigInvalid,
    Locked,
    NewerFormat,
    NoRepository,
    NoSuchVersion,
    RepositoryDamaged,
)
from servingrepo.modelconfig import EMPTY, render
from servingrepo.repository.config_write import rewrite
from servingrepo.repository.repository import (
    locked,
    model_names,
    names_on_disk,
    need_version,
    new_txid,
    published_versions,
    record_numbers,
)
from servingrepo.repository.retention import Keep

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


def test_init_makes_a_repository_with_a_config_that_a_server_can_start_with(tmp_path: Path) -> None:
    repo, made = servingrepo.init(tmp_path / "a" / "b", server_root="/srv/models/")
    assert made
    assert repo.value.layout.config.read_text() == render(EMPTY)
    assert servingrepo.open(tmp_path / "a" / "b").value.server_root == "/srv/models"
    assert stat.S_IMODE(repo.value.layout.models.stat().st_mode) == 0o755
    assert repo.models() == ()
    assert list(repo.history()) == []


def test_init_leaves_a_repository_as_it_is(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    before = {path: path.read_bytes() for path in repo.root.rglob("*") if path.is_file()}
    again, made = servingrepo.init(repo.root, server_root="/other")
    assert not made
    assert again.value.server_root == "/models"
    assert before == {path: path.read_bytes() for path in repo.root.rglob("*") if path.is_file()}


def test_init_leaves_a_config_that_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.config").write_text("model_config_list {}\n")
    servingrepo.init(tmp_path)
    assert (tmp_path / "models" / "models.config").read_text() == "model_config_list {}\n"


@pytest.mark.parametrize("server_root", ["models", "", "./models"])
def test_a_server_root_that_is_not_absolute_is_refused(server_root: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid):
        servingrepo.init(tmp_path / "r", server_root=server_root)
    assert not (tmp_path / "r").exists()


def test_two_inits_at_once_make_one_repository(tmp_path: Path) -> None:
    made: list[bool] = []
    barrier = threading.Barrier(8)

    def run() -> None:
        barrier.wait()
        made.append(servingrepo.init(tmp_path / "r")[1])

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    assert list((tmp_path / "r").rglob(".*.tmp")) == []


def test_a_directory_that_is_no_repository_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoRepository, match="is not a servingrepo repository") as caught:
        servingrepo.open(tmp_path)
    assert caught.value.hint is not None
    assert "init" in caught.value.hint
    with pytest.raises(NoRepository, match="does not exist"):
        servingrepo.open(tmp_path / "gone")


def test_a_repository_of_a_newer_format_is_refused(repo: OpenRepository) -> None:
    marker = repo.value.layout.format
    marker.write_bytes(msgspec.json.encode({"schema": 3}))
    with pytest.raises(NewerFormat, match=r"format\.json"):
        servingrepo.open(repo.root)
    with pytest.raises(NewerFormat):
        servingrepo.init(repo.root)


def test_a_damaged_marker_is_reported(repo: OpenRepository) -> None:
    repo.value.layout.format.write_bytes(b"{")
    with pytest.raises(RepositoryDamaged):
        servingrepo.open(repo.root)


def test_the_lock_keeps_writers_out_and_readers_in(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    release(2.0)
    impatient = servingrepo.open(repo.root, lock_wait=0)
    with locked(repo.value):
        with pytest.raises(Locked, match=str(repo.root)):
            impatient.rollback("m")
        assert impatient.list()[0].served == 2
        assert impatient.verify("m")[0].ok
        assert impatient.rollback("m", dry_run=True).after == (1,)
    assert impatient.rollback("m").after == (1,)


def test_published_are_versions_with_a_record_and_a_directory(
    repo: OpenRepository, release: Release
) -> None:
    for slope in (1.0, 2.0, 3.0):
        release(slope, serve=False)
    layout = repo.value.layout
    shutil.rmtree(layout.version("m", 1))
    layout.record("m", 2).unlink()
    (layout.model("m") / "9").mkdir()
    (layout.records("m") / "notes.txt").write_text("")
    assert published_versions(repo.value, "m") == (3,)
    assert record_numbers(repo.value, "m") == (1, 3)
    assert sorted(names_on_disk(repo.value, "m") or ()) == [2, 3, 9]


def test_a_version_that_is_foreign_or_missing_is_said_to_be_so(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    (repo.value.layout.model("m") / "9").mkdir()
    with pytest.raises(NoSuchVersion, match="servingrepo did not publish"):
        need_version(repo.value, "m", 9)
    with pytest.raises(NoSuchVersion, match="no version 5 of m") as caught:
        need_version(repo.value, "m", 5)
    assert caught.value.hint == "versions: 1"
    shutil.rmtree(repo.value.layout.version("m", 1))
    with pytest.raises(NoSuchVersion, match="no version 1 of m"):
        need_version(repo.value, "m", 1)


def test_model_names_are_those_with_a_state(repo: OpenRepository, release: Release) -> None:
    release(1.0, model="b")
    release(1.0, model="a.b-c")
    (repo.value.layout.models / "foreign").mkdir()
    (repo.value.layout.states / ".x.json.tmp").write_text("")
    assert model_names(repo.value) == ("a.b-c", "b")


def test_txids_sort_by_time_and_never_meet(repo: OpenRepository) -> None:
    made = [new_txid(repo.value) for _ in range(200)]
    assert len(set(made)) == 200
    assert len({one[:16] for one in made}) <= 2


def test_nothing_is_written_by_reading(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    release(2.0)

    def facts() -> dict[Path, tuple[int, int]]:
        every = [repo.root, *repo.root.rglob("*")]
        return {one: (one.stat().st_mtime_ns, one.stat().st_ino) for one in every}

    before = facts()
    repo.list()
    repo.show("m")
    repo.show_version("m")
    repo.verify()
    list(repo.history())
    repo.rollback("m", dry_run=True)
    repo.unserve("m", dry_run=True)
    repo.mark_bad("m@1", dry_run=True)
    repo.hold("m", dry_run=True)
    assert facts() == before


def drop_empty_folders(root: Path) -> set[str]:
    """Do to a repository what a backup does that leaves empty folders out."""
    dropped = set()
    while empty := [one for one in root.rglob("*") if one.is_dir() and not any(one.iterdir())]:
        for folder in empty:
            folder.rmdir()
            dropped.add(str(folder.relative_to(root)))
    return dropped


def test_writers_make_empty_folders_again_that_a_backup_left_out(
    five: OpenRepository, release: Release
) -> None:
    five.prune("m", keep=Keep(last=4))
    five.prune("m", empty_trash=True)
    lost = {".servingrepo/journal", "models/m/.staging", "models/m/.trash"}
    assert drop_empty_folders(five.root) == lost
    assert five.list()[0].versions == (2, 3, 4, 5)
    assert [one.ok for one in five.verify("m")] == [True] * 4
    assert five.history("m")
    assert not five.value.layout.journal.exists(), "readers make nothing"
    five.hold("m", dry_run=True)
    assert not five.value.layout.journal.exists(), "nor does a dry run"
    five.hold("m")
    five.release_hold("m")
    assert stat.S_IMODE(five.value.layout.journal.stat().st_mode) == 0o755
    drop_empty_folders(five.root)
    assert release(6.0) == 6
    drop_empty_folders(five.root)
    assert five.rollback("m").after == (5,)
    drop_empty_folders(five.root)
    assert five.prune("m", keep=Keep(last=1)).models[0].gone == (6, 3, 2)
    drop_empty_folders(five.root)
    assert five.restore("m@3").version == 3
    drop_empty_folders(five.root)
    assert five.recover() == ()


def test_a_new_repository_without_its_empty_folders_can_be_read_and_written(
    repo: OpenRepository, release: Release
) -> None:
    assert drop_empty_folders(repo.root) == {".servingrepo/journal", ".servingrepo/models"}
    assert repo.list() == ()
    assert not repo.value.layout.states.exists()
    config = repo.value.layout.config
    config.write_text(
        'model_config_list { config { name: "x" base_path: "/x" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 1 } } } }"
    )
    rewrite(repo.value, edit="take")
    drop_empty_folders(repo.root)
    assert [event.model for event in repo.history()] == ["x"], "a model of which there is no record"
    assert [(row.model, row.ours) for row in repo.list()] == [("x", False)]
    assert release(1.0) == 1


def test_records_that_were_lost_are_not_taken_for_none(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    shutil.rmtree(repo.value.layout.states)
    for use in (repo.list, lambda: release(2.0)):
        with pytest.raises(RepositoryDamaged, match="is missing, and history knows of some"):
            use()
    assert not repo.value.layout.states.exists()
