from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

import servingrepo
from servingrepo.errors import (
    BadVersionNumber,
    DamagedExport,
    NumberUsed,
    RepositoryDamaged,
    StorageFailed,
    VersionBad,
)
from servingrepo.modelconfig import MAX_VERSION, pin
from servingrepo.repository import journal
from servingrepo.repository.config import read_own_config, write_config
from servingrepo.repository.history import Event
from servingrepo.repository.journal import Intent
from servingrepo.repository.publication import (
    choose_number,
    highest_used,
    publish,
    refuse_flat_model,
    reserve,
    stage,
)
from servingrepo.repository.repository import (
    Repository,
    load_record,
    load_state,
    me,
    record_numbers,
    save_state,
)
from servingrepo.repository.retention import Keep
from servingrepo.repository.snapshot import read_snapshot
from servingrepo.repository.transaction import writing
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.storage.tree import read_tree
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


def failing(repo: OpenRepository, plan: str) -> Repository:
    return msgspec.structs.replace(repo.value, disk=Disk(faults=Faults.parse(plan)))


# numbers ------------------------------------------------------------------------------------------


def test_numbers_count_up_from_one(repo: OpenRepository, release: Release) -> None:
    assert [release(slope) for slope in (1.0, 2.0, 3.0)] == [1, 2, 3]
    assert release(1.0, model="other") == 1


def test_the_number_of_a_version_that_was_deleted_by_hand_is_not_used_again(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0, serve=False)
    shutil.rmtree(repo.value.layout.version("m", 2))
    repo.value.layout.record("m", 2).unlink()
    assert release(3.0) == 3


def test_the_number_of_a_running_promotion_is_not_given_to_another(repo: OpenRepository) -> None:
    with (
        reserve(repo.value, model="m", version=None) as first,
        reserve(repo.value, model="m", version=None) as second,
        reserve(repo.value, model="other", version=None) as other,
    ):
        assert (first.version, second.version, other.version) == (1, 2, 1)


def test_an_intent_alone_keeps_its_number(repo: OpenRepository) -> None:
    intent = Intent(txid="t", command="promote", owner=me(), model="m", version=41)
    with journal.declare(Disk(), repo.value.layout.intent("t"), intent):
        assert choose_number(repo.value, read_snapshot(repo.value, "m"), None) == 42
        assert choose_number(repo.value, read_snapshot(repo.value, "other"), None) == 1


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("7", "directory", 8),
        ("7", "file", 8),
        ("7", "broken link", 8),
        ("007", "directory", 8),
        ("+7", "directory", 8),
        ("-3", "directory", 1),
        ("0", "directory", 1),
        ("7x", "directory", 1),
        ("v7", "directory", 1),
    ],
)
def test_numbers_are_above_everything_that_tf_serving_takes_for_a_version(
    name: str, kind: str, expected: int, repo: OpenRepository
) -> None:
    base = repo.value.layout.model("m")
    base.mkdir()
    match kind:
        case "directory":
            (base / name).mkdir()
        case "file":
            (base / name).write_bytes(b"")
        case _:
            (base / name).symlink_to("nowhere")
    assert choose_number(repo.value, read_snapshot(repo.value, "m"), None) == expected


def test_numbers_are_above_what_the_config_pins_and_labels(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    config = pin(
        read_own_config(repo.value),
        name="m",
        base_path="/models/m",
        versions=[1, 30],
        labels={"old": 30},
    )
    write_config(repo.value, config)
    assert highest_used(repo.value, read_snapshot(repo.value, "m")) == 30


def test_a_number_may_be_chosen_above_all_that_were_used(
    repo: OpenRepository, release: Release
) -> None:
    assert release(1.0, version=20) == 20
    assert release(2.0) == 21


@pytest.mark.parametrize("wanted", [1, 19, 20])
def test_a_number_that_is_not_above_them_is_refused_with_the_next_one(
    wanted: int, repo: OpenRepository, release: Release
) -> None:
    release(1.0, version=20)
    with pytest.raises(NumberUsed) as caught:
        release(2.0, version=wanted)
    assert caught.value.hint is not None
    assert "--version 21" in caught.value.hint


@pytest.mark.parametrize("wanted", [0, -5, MAX_VERSION + 1])
def test_a_number_that_is_no_positive_int64_is_refused_as_such(
    wanted: int, repo: OpenRepository
) -> None:
    with pytest.raises(BadVersionNumber):
        choose_number(repo.value, read_snapshot(repo.value, "m"), wanted)


def test_the_greatest_int64_is_a_number_and_nothing_comes_after_it(
    repo: OpenRepository, release: Release
) -> None:
    assert release(1.0, version=MAX_VERSION) == MAX_VERSION
    assert repo.show("m").served == MAX_VERSION
    with pytest.raises(NumberUsed, match="highest number there is"):
        release(2.0)


# staging and C1 -----------------------------------------------------------------------------------


def test_a_reservation_that_ends_well_leaves_no_intent_and_no_staging(
    repo: OpenRepository, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "run")
    with reserve(repo.value, model="m", version=None) as place:
        manifest = stage(repo.value, place, read_tree(export, boundary=export))
        assert place.export == repo.value.layout.staging("m", place.txid) / "1"
        assert manifest.size > 0
        assert len(list(repo.value.layout.journal.iterdir())) == 1
    assert list(repo.value.layout.journal.iterdir()) == []
    assert list((repo.value.layout.model("m") / ".staging").iterdir()) == []


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_reservation_that_ends_badly_leaves_no_intent_and_no_staging(
    error: type[BaseException], repo: OpenRepository, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "run")
    with (  # noqa: PT012 - the error comes after work that must be undone
        pytest.raises(error),
        reserve(repo.value, model="m", version=None) as place,
    ):
        stage(repo.value, place, read_tree(export, boundary=export))
        raise error
    assert list(repo.value.layout.journal.iterdir()) == []
    assert not repo.value.layout.staging("m", place.txid).exists()
    assert not repo.value.layout.version("m", 1).exists()


def test_a_number_is_burnt_once_something_was_staged_under_it(
    repo: OpenRepository, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), reserve(repo.value, model="m", version=None):
        raise ZeroDivisionError
    assert repo.models() == (), "nobody can have seen number 1"
    with (  # noqa: PT012 - the error comes after work that counts
        pytest.raises(ZeroDivisionError),
        reserve(repo.value, model="m", version=None) as place,
    ):
        assert place.version == 1
        stage(repo.value, place, read_tree(export, boundary=export))
        raise ZeroDivisionError
    with reserve(repo.value, model="m", version=None) as place:
        assert place.version == 2


def test_two_reservations_never_get_one_number(repo: OpenRepository) -> None:
    with (
        reserve(repo.value, model="m", version=None) as one,
        reserve(repo.value, model="m", version=None) as other,
    ):
        assert (one.version, other.version) == (1, 2)


def test_a_reservation_whose_number_cannot_be_burnt_stays_to_be_recovered(
    repo: OpenRepository, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "run")
    broken = failing(repo, "state.before-rename=EIO")
    with (  # noqa: PT012 - the error comes after work that counts
        pytest.raises(ZeroDivisionError),
        reserve(broken, model="m", version=None) as place,
    ):
        stage(broken, place, read_tree(export, boundary=export))
        raise ZeroDivisionError
    assert place.version == 1
    assert len(list(repo.value.layout.journal.iterdir())) == 1
    repo.recover()
    with reserve(repo.value, model="m", version=None) as place:
        assert place.version == 2


def test_something_that_appears_where_the_version_belongs_is_left_alone(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    record = load_record(repo.value, "m", 1)
    assert record is not None
    export = write_export(tmp_path / "run", slope=2.0)
    target = repo.value.layout.version("m", 2)
    with (  # noqa: PT012 - the race in full
        pytest.raises(NumberUsed, match="appeared while version 2"),
        reserve(repo.value, model="m", version=None) as place,
    ):
        stage(repo.value, place, read_tree(export, boundary=export))
        target.mkdir()  # an empty directory, which a plain rename would replace
        with writing(repo.value):
            mine = msgspec.structs.replace(record, version=2, txid=place.txid)
            publish(repo.value, place, mine)
    assert list(target.iterdir()) == []
    assert load_record(repo.value, "m", 2) is None
    assert [one.version for one in repo.history("m")] == [1]
    assert repo.show("m").foreign == ("2",)


def test_a_version_is_readable_by_everybody(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    for path in (repo.value.layout.models, *repo.value.layout.models.rglob("*")):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_a_saved_model_directly_in_the_model_folder_is_refused(repo: OpenRepository) -> None:
    write_export(repo.value.layout.model("m"))
    with pytest.raises(RepositoryDamaged, match="without a version number"):
        refuse_flat_model(repo.value, "m")


# the same content ---------------------------------------------------------------------------------


def test_the_same_content_is_not_published_twice(repo: OpenRepository, release: Release) -> None:
    assert release(1.0) == 1
    assert release(2.0) == 2
    before = list(repo.history())
    assert release(1.0) == 1
    assert list(repo.history()) == before
    assert repo.show("m").served == 2
    assert release(1.0, serve=True) == 1
    assert repo.show("m").served == 1


def test_the_same_content_in_another_model_is_another_version(release: Release) -> None:
    assert release(1.0) == release(1.0, model="other") == 1


def test_bad_content_is_refused_even_when_its_version_is_deleted(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    repo.mark_bad("m@1", message="broken labels")
    with pytest.raises(VersionBad, match="broken labels"):
        release(1.0)
    shutil.rmtree(repo.value.layout.version("m", 1))
    with pytest.raises(VersionBad, match="broken labels"):
        release(1.0)
    repo.value.layout.record("m", 1).unlink()
    with pytest.raises(VersionBad, match="broken labels"):
        release(1.0)
    assert repo.show("m").versions[0].version == 2
    assert not (repo.value.layout.model("m") / "3").exists()


@pytest.mark.parametrize("sized", [True, False])
def test_bad_content_that_was_deleted_for_good_is_refused_before_it_is_copied(
    repo: OpenRepository, release: Release, tmp_path: Path, *, sized: bool
) -> None:
    run = write_export(tmp_path / "run", assets={"words": b"a"})
    repo.promote(run, model="m", smoke=False)
    size = repo.show_version("m@1").size
    release(2.0)
    release(3.0)
    repo.mark_bad("m@1", message="broken labels")
    repo.prune("m", keep=Keep(last=1))
    repo.prune("m", empty_trash=True)
    state = load_state(repo.value, "m")
    assert state is not None
    mark = state.bad[1]
    assert mark.size == size
    assert record_numbers(repo.value, "m") == (2, 3)
    if not sized:  # as an older servingrepo left it
        bad = {1: msgspec.structs.replace(mark, size=None)}
        save_state(repo.value, msgspec.structs.replace(state, bad=bad))
    with pytest.raises(VersionBad, match="broken labels"):
        repo.promote(run, model="m", smoke=False)
    after = load_state(repo.value, "m")
    assert after is not None
    assert after.highest == 3, "no number was burnt, so nothing was staged"
    assert release(4.0) == 4


def test_a_held_model_is_published_and_not_served(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    repo.hold("m", message="freeze")
    assert release(2.0) == 2
    assert repo.show("m").served == 1
    last = list(repo.history("m"))[-1]
    assert isinstance(last, Event)
    assert (last.version, last.before, last.after) == (2, (1,), (1,))


def test_a_damaged_export_leaves_no_trace(repo: OpenRepository, tmp_path: Path) -> None:
    run = write_export(tmp_path / "run", variables=True)
    (run / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(DamagedExport):
        repo.promote(run, model="m", smoke=False)
    assert repo.models() == ()
    assert not repo.value.layout.model("m").exists()


@pytest.mark.parametrize(
    ("step", "served", "said"),
    [
        ("c1.done", "1", "m@2 is published all the same; served now: 1"),
        ("c2.before-write", "1", "m@2 is published all the same, but not served (served now: 1): "),
        ("c2.after-rename", "2", "m@2 is published all the same, and served, but "),
    ],
)
def test_an_error_after_c1_says_that_the_version_is_published_and_what_is_served(
    step: str, served: str, said: str, repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    release(1.0)
    broken = servingrepo.open(repo.root, disk=Disk(faults=Faults.parse(f"{step}=EIO")))
    export = write_export(tmp_path / "run", slope=2.0)
    with pytest.raises(StorageFailed) as caught:
        broken.promote(export, model="m", smoke=False)
    lines = "\n".join([caught.value.message, *caught.value.problems])
    assert said in lines
    assert lines.count("m@2 is published") == 1
    assert str(repo.show("m").served) == served
    assert repo.recover() == ()
