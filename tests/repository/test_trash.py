from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import servingrepo
from servingrepo.errors import (
    NoPermission,
    NoSuchVersion,
    NothingToRollBack,
    VersionBad,
)
from servingrepo.repository.publication import choose_number
from servingrepo.repository.repository import load_state, save_state
from servingrepo.repository.retention import Keep
from servingrepo.repository.snapshot import read_snapshot
from servingrepo.testing.exports import write_export
from tests.repository.trashes import LAST, in_trash, on_disk

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


def test_to_serve_or_go_back_to_a_version_in_the_trash_says_what_to_type(
    five: OpenRepository,
) -> None:
    five.prune("m", keep=LAST)
    with pytest.raises(NoSuchVersion, match="m@1 is in the trash") as served:
        five.serve("m@1")
    with pytest.raises(NoSuchVersion, match="m@1 is in the trash") as rolled_back:
        five.rollback("m", to=1)
    for caught in (served, rolled_back):
        assert "servingrepo restore m@1" in (caught.value.hint or "")


def test_a_rollback_whose_only_targets_are_in_the_trash_says_which_to_restore(
    five: OpenRepository,
) -> None:
    five.prune("m", keep=LAST)
    five.mark_bad("m@4")
    with pytest.raises(NothingToRollBack) as caught:
        five.rollback("m")
    assert "servingrepo restore m@3, then servingrepo rollback m" in (caught.value.hint or "")
    five.restore("m@3")
    assert five.rollback("m").after == (3,)


def test_content_that_is_in_the_trash_is_published_again_and_the_result_says_so(
    five: OpenRepository, release: Release, tmp_path: Path
) -> None:
    five.prune("m", keep=LAST)
    done = five.promote(tmp_path / "runs" / "slope-2.0", model="m", smoke=False)
    assert (done.version, done.same_as, done.same_in_trash) == (6, None, 2)
    assert five.restore("m@2").version == 2


def test_content_marked_bad_is_refused_from_the_trash_and_after_it_was_emptied(
    five: OpenRepository, tmp_path: Path
) -> None:
    five.prune("m", keep=LAST)
    five.mark_bad("m@2", message="leaks")
    run = tmp_path / "runs" / "slope-2.0"
    with pytest.raises(VersionBad, match="leaks"):
        five.promote(run, model="m", smoke=False)
    assert five.restore("m@2", dry_run=True).bad == "leaks"
    five.prune(empty_trash=True)
    with pytest.raises(VersionBad, match="leaks"):
        five.promote(run, model="m", smoke=False)
    five.mark_bad("m@2", clear=True)
    assert five.promote(run, model="m", smoke=False).published


def test_a_pinned_version_that_is_in_the_trash_is_drift_with_the_way_back(
    five: OpenRepository,
) -> None:
    five.prune("m", keep=LAST)
    five.value.layout.config.write_text(
        five.value.layout.config.read_text().replace("versions: 5", "versions: 1")
    )
    (row,) = five.status().models
    (drift,) = row.drift
    assert (drift.reason, drift.message) == (
        "missing-on-disk",
        "m@1 is pinned but missing on disk: it is in the trash; servingrepo restore m@1",
    )
    assert (row.trash, row.trash_size > 0) == ((1, 2, 3), True)


def test_numbers_in_the_trash_are_not_used_again_even_if_nothing_else_knows_them(
    five: OpenRepository,
) -> None:
    five.unserve("m")
    five.prune("m", keep=Keep(labelled=("x",)))
    state = load_state(five.value, "m")
    assert state is not None
    save_state(five.value, msgspec.structs.replace(state, highest=0))
    shutil.rmtree(five.value.layout.version("m", 5))
    for number in (1, 2, 3, 4, 5):
        five.value.layout.record("m", number).unlink()
    assert in_trash(five)[-1] == 4
    assert choose_number(five.value, read_snapshot(five.value, "m"), None) == 5


def test_a_trash_that_cannot_be_written_is_said_and_nothing_moves(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory(prefix="servingrepo-test-") as name:
        Path(name).chmod(0o755)
        repo, _ = servingrepo.init(Path(name) / "repo")
        for slope in (1.0, 2.0, 3.0):
            write_export(tmp_path / f"r{slope}" / "saved_model", slope=slope, variables=True)
            repo.promote(tmp_path / f"r{slope}", model="m", smoke=False)
        repo.hold("m")
        repo.release_hold("m")
        repo.prune("m", keep=LAST, dry_run=True)  # what is imported late, is imported by now
        trash = repo.value.layout.trash("m")
        trash.mkdir()
        for path in (repo.root, *repo.root.rglob("*")):
            if path != trash:
                os.chown(path, 65534, 65534)
        os.seteuid(65534)
        try:
            with pytest.raises(NoPermission, match=r"/\.trash/1-"):
                repo.prune("m", keep=LAST)
            assert on_disk(repo) == [1, 2, 3]
            assert list(repo.value.layout.journal.iterdir()) == []
            assert repo.rollback("m").after == (2,)
        finally:
            os.seteuid(0)
        assert [event.action for event in repo.history("m")][-1] == "rollback"
