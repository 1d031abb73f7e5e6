from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import (
    BadReference,
    ConfigInvalid,
    NoSuchVersion,
    NumberUsed,
    RepositoryDamaged,
    VersionDamaged,
)
from tests.repository.trashes import LAST, configured, in_trash, on_disk, trash_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servingrepo.api import OpenRepository


def test_restore_brings_a_version_back_byte_for_byte_and_does_not_serve_it(
    five: OpenRepository,
) -> None:
    config = five.value.layout.config.read_bytes()
    five.prune("m", keep=LAST)
    done = five.restore("m@2")
    assert (done.version, done.bad, done.path) == (2, None, str(five.value.layout.version("m", 2)))
    assert five.verify("m@2")[0].ok
    assert (on_disk(five), in_trash(five)) == ([2, 4, 5], [1, 3])
    assert five.value.layout.config.read_bytes() == config
    assert five.serve("m@2").after == (2,)


def test_what_was_restored_can_be_pruned_again(five: OpenRepository) -> None:
    for _ in range(2):
        five.prune("m", keep=LAST)
        assert in_trash(five) == [1, 2, 3]
        five.restore("m@2")
    assert on_disk(five) == [2, 4, 5]


def test_a_dry_run_of_a_restore_checks_all_and_moves_nothing(five: OpenRepository) -> None:
    five.prune("m", keep=LAST)
    assert five.restore("m@1", dry_run=True).dry_run
    assert in_trash(five) == [1, 2, 3]
    (trash_of(five, 1) / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(VersionDamaged):
        five.restore("m@1", dry_run=True)


def test_nobody_deletes_what_is_being_restored(five: OpenRepository) -> None:
    five.prune("m", keep=LAST)

    def empty(_size: int) -> None:
        five.prune(empty_trash=True)

    assert five.restore("m@2", progress=empty).version == 2
    assert (on_disk(five), in_trash(five)) == ([2, 4, 5], [])


def flip(path: Path) -> None:
    data = bytearray((path / "saved_model.pb").read_bytes())
    data[-1] ^= 1
    (path / "saved_model.pb").write_bytes(data)


def lose(path: Path) -> None:
    (path / "variables" / "variables.index").unlink()


def add(path: Path) -> None:
    (path / "extra").mkdir()


def test_what_another_restore_took_is_not_called_damaged(five: OpenRepository) -> None:
    five.prune("m", keep=LAST)
    taken: list[int] = []

    def take(_: int) -> None:
        if not taken:
            taken.append(five.restore("m@2").version)

    with pytest.raises(NoSuchVersion, match="it is on disk"):
        five.restore("m@2", progress=take)
    assert taken == [2]
    assert five.verify("m@2")[0].ok


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip, "changed: saved_model.pb"),
        (lose, "missing: variables/variables.index"),
        (add, "extra: extra"),
    ],
)
def test_a_version_that_was_damaged_in_the_trash_stays_there(
    harm: Callable[[Path], None], said: str, five: OpenRepository
) -> None:
    five.prune("m", keep=LAST)
    harm(trash_of(five, 1))
    with pytest.raises(VersionDamaged, match="m@1 in the trash is not what its record") as caught:
        five.restore("m@1")
    assert said in caught.value.problems
    assert in_trash(five) == [1, 2, 3]
    assert not five.verify("m@1")[0].ok
    assert all(one.ok for one in five.verify()), "the trash is no part of what is published"


def test_restore_refuses_what_is_not_in_the_trash_and_says_what_is(five: OpenRepository) -> None:
    with pytest.raises(NoSuchVersion, match="m@5 is not in the trash: it is on disk") as caught:
        five.restore("m@5")
    assert caught.value.hint == "in the trash of m: nothing"
    five.prune("m", keep=LAST)
    with pytest.raises(NoSuchVersion, match="m@9 is not in the trash") as caught:
        five.restore("m@9")
    assert caught.value.hint == "in the trash of m: 1, 2, 3"
    for reference in ("m", "m@latest", "m@previous"):
        with pytest.raises(BadReference, match="does not name the version to restore"):
            five.restore(reference)


@pytest.mark.parametrize("name", ["1", "01", "+1"])
def test_restore_leaves_alone_what_has_the_place_by_now(name: str, five: OpenRepository) -> None:
    five.prune("m", keep=LAST)
    (five.value.layout.model("m") / name).mkdir()
    with pytest.raises(NumberUsed, match="has the place of m@1"):
        five.restore("m@1")
    assert in_trash(five) == [1, 2, 3]


def test_a_trashed_version_without_a_record_cannot_be_restored(five: OpenRepository) -> None:
    five.prune("m", keep=LAST)
    five.value.layout.record("m", 1).unlink()
    with pytest.raises(RepositoryDamaged, match="has no record"):
        five.restore("m@1")
    assert five.show("m").trash[-1].message == "no record: it cannot be restored"


@pytest.mark.parametrize(
    ("policy", "version", "said"),
    [
        ("model_version_policy { all {} }", 1, "has all"),
        ("model_version_policy { latest { num_versions: 4 } }", 3, "has latest"),
        ("", 3, "has no policy, which is latest"),
    ],
)
def test_restore_is_refused_where_the_directory_alone_would_deploy_it(
    policy: str, version: int, said: str, five: OpenRepository
) -> None:
    five.prune("m", keep=LAST)
    if not policy:  # 3 is the highest then
        for number in (4, 5):
            shutil.rmtree(five.value.layout.version("m", number))
    configured(five, f"name: 'm' base_path: '/models/m' {policy}")
    with pytest.raises(ConfigInvalid, match=f"would be served as soon as it is back.*{said}"):
        five.restore(f"m@{version}")
    assert version in in_trash(five)


def test_restore_goes_on_where_the_latest_versions_are_others(five: OpenRepository) -> None:
    five.prune("m", keep=LAST)
    configured(
        five,
        "name: 'm' base_path: '/models/m' model_version_policy { latest { num_versions: 2 } }",
    )
    assert five.restore("m@1").version == 1


def test_verify_of_a_version_in_the_trash_says_where_it_is(five: OpenRepository) -> None:
    five.prune("m", keep=LAST)
    (found,) = five.verify("m@1")
    assert (found.ok, found.in_trash) == (True, True)
    assert found.path == str(trash_of(five, 1))
    assert five.size("m@1") == found.size
    assert [one.subject for one in five.verify()] == ["m@4", "m@5"]
