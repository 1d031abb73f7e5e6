from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

from servingrepo.api import OpenRepository
from servingrepo.errors import NoSuchVersion, StorageFailed
from servingrepo.repository.records import ModelState, encode
from servingrepo.repository.retention import Keep
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
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


def test_versions_that_nobody_published_here_are_shown(repo: OpenRepository) -> None:
    for place in ("lr/20201016", "lr/20210118", "notes/old", ".hidden/7"):
        (repo.value.layout.models / place).mkdir(parents=True)
    (row,) = repo.list()
    assert (row.model, row.versions, row.foreign) == ("lr", (), (20201016, 20210118))
    assert (row.ours, row.served, row.held, row.bad, row.trash) == (False, None, False, (), ())
    details = repo.show("lr")
    assert (details.ours, details.highest, details.versions) == (False, 0, ())
    assert details.foreign == ("20201016", "20210118")
    (shown,) = repo.status().models
    assert (shown.model, shown.ours, shown.foreign) == ("lr", False, (20201016, 20210118))
    assert repo.status().ok
    assert repo.status().next.startswith("servingrepo adopt --all")
    for call in (lambda: repo.serve("lr"), lambda: repo.show_version("lr@20201016")):
        with pytest.raises(NoSuchVersion, match="published no version of lr") as refused:
            call()
        assert "servingrepo adopt lr" in (refused.value.hint or "")
    with pytest.raises(NoSuchVersion, match="there is no model notes"):
        repo.show("notes")
    assert repo.models() == ()


def test_entries_of_others_are_shown_beside_ours(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    config = repo.value.layout.config
    config.write_text(
        config.read_text().rstrip().removesuffix("}")
        + 'config { name: "el" base_path: "/elsewhere/el" model_platform: "tensorflow"'
        " model_version_policy { specific { versions: 3 } } } }"
    )
    el, m = repo.list()
    assert (el.model, el.ours, el.pinned, el.versions, el.foreign) == ("el", False, (3,), (), ())
    assert (m.ours, m.served) == (True, 1)
    assert repo.show("el").served == 3


def test_a_first_promotion_that_failed_leaves_no_row(
    repo: OpenRepository, release: Release
) -> None:
    failing = Disk(faults=Faults.parse("proven=EIO"))
    broken = OpenRepository(msgspec.structs.replace(repo.value, disk=failing))
    run = repo.root.parent / "runs" / "slope-1.0"
    write_export(run / "saved_model", slope=1.0)
    with pytest.raises(StorageFailed):
        broken.promote(run, model="m", smoke=False)
    assert repo.list() == ()
    assert repo.status().models == ()
    assert repo.show("m").highest == 1, "the number is burnt"
    # Whatever somebody did to it brings it back.
    repo.hold("m")
    assert [row.model for row in repo.list()] == ["m"]
    repo.release_hold("m")
    assert [row.model for row in repo.list()] == ["m"], "history knows of it"


def test_models_without_version_or_event_have_no_row(
    repo: OpenRepository, release: Release
) -> None:
    """The history is read once for all that have no version."""
    release(1.0, model="gone", serve=False)
    repo.prune(keep=Keep(labelled=("nosuch",)), empty_trash=True)
    for name in ("burnt", "burnt-too"):
        repo.value.layout.state(name).write_bytes(encode(ModelState(name=name, highest=1)))
    assert [row.model for row in repo.list()] == ["gone"]


def test_a_link_in_a_circle_is_no_version(repo: OpenRepository, release: Release) -> None:
    release(1.0)
    release(2.0)
    directory = repo.value.layout.version("m", 1)
    shutil.rmtree(directory)
    directory.symlink_to("1")
    (repo.value.layout.models / "circle").symlink_to("circle")
    (row,) = repo.list()
    assert (row.versions, row.foreign) == ((2,), (1,))


def test_a_model_that_lost_all_its_versions_stays_in_the_list(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0, serve=False)
    repo.prune(keep=Keep(labelled=("nosuch",)), empty_trash=True)
    (row,) = repo.list()
    assert (row.model, row.versions, row.trash, row.ours) == ("m", (), (), True)
