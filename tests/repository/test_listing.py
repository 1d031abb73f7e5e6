from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoSuchVersion

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


def test_a_new_repository_lists_nothing(repo: OpenRepository) -> None:
    assert repo.list() == ()


def test_a_row_says_what_is_served_published_foreign_bad_and_held(
    repo: OpenRepository, release: Release
) -> None:
    for slope in (1.0, 2.0, 3.0):
        release(slope)
    release(1.0, model="a", serve=False)
    repo.rollback("m")
    repo.hold("m")
    (repo.value.layout.model("m") / "9").mkdir()
    (repo.value.layout.model("m") / "notes").mkdir()
    a, m = repo.list()
    assert (a.model, a.served, a.pinned, a.versions, a.held) == ("a", None, (), (1,), False)
    assert (m.model, m.served, m.versions) == ("m", 2, (1, 2, 3))
    assert (m.foreign, m.bad, m.held) == ((9,), (3,), True)


def test_a_model_is_shown_with_its_versions_highest_first(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    repo.mark_bad("m@1", message="old")
    details = repo.show("m")
    assert [row.version for row in details.versions] == [2, 1]
    new, old = details.versions
    assert (new.served, new.pinned, new.bad, new.proof) == (True, True, None, "not checked")
    assert old.bad is not None
    assert old.bad.reason == "old"
    assert new.size > 0
    assert details.highest == 2


def test_foreign_directories_are_shown_by_name(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    for name in ("007", "-3", "12"):
        (repo.value.layout.model("m") / name).mkdir()
    assert repo.show("m").foreign == ("-3", "007", "12")


def test_a_model_that_is_not_there_is_refused(repo: OpenRepository) -> None:
    with pytest.raises(NoSuchVersion):
        repo.show("m")


def test_the_record_of_a_version_says_where_it_came_from(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    record = repo.show_version("m@1")
    assert record.source.run.endswith("slope-1.0")
    assert record.manifest.size == record.size
    assert record.signatures[0].key == "serving_default"
