"""Repositories as every released format wrote them, kept for ever: today's code reads them, and goes on with them.

`1-first` is what the first release wrote; `1-tensors` has the verdicts on fingerprints and tensors; in `2-paths` the
folder of the model is not its name. A change of a format adds a folder here and never touches one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository

FORMATS = sorted(Path(__file__).with_name("formats").iterdir())


@pytest.fixture(params=FORMATS, ids=lambda one: one.name)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> OpenRepository:
    """A copy of a repository that an earlier release wrote."""
    shutil.copytree(request.param, tmp_path / "serving")
    (tmp_path / "serving/.servingrepo/journal").mkdir()  # git keeps no empty directories
    return servingrepo.open(tmp_path / "serving")


def test_a_repository_of_every_format_is_read(kept: OpenRepository) -> None:
    (row,) = kept.list()
    assert (row.model, row.served) == ("ranker", 2)
    model = kept.show("ranker")
    assert [(one.version, one.bad is not None) for one in model.versions] == [(2, False), (1, True)]
    assert model.hold is not None
    first, second = (kept.show_version(f"ranker@{number}") for number in (1, 2))
    assert (first.user, first.host, first.message) == ("ada", "forge", "weekly")
    assert first.proofs[0].report.verdicts
    assert first.fingerprint is not None
    assert first.fingerprint.field("checkpoint_hash").verdict == "matches"
    assert second.proofs == ()
    assert [one.action for one in kept.history()] == ["promote", "promote", "mark-bad", "hold"]


def test_versions_of_every_format_are_verified_against_their_records(kept: OpenRepository) -> None:
    found = kept.verify()
    assert [(one.subject, one.ok) for one in found] == [("ranker@1", True), ("ranker@2", True)]
    assert all(one.tensors is not None and one.tensors.checked == 2 for one in found)


def test_a_repository_of_every_format_goes_on(kept: OpenRepository, tmp_path: Path) -> None:
    kept.release_hold("ranker")
    kept.mark_bad("ranker@1", clear=True)
    write_export(tmp_path / "run", offset=9.0, variables=True)
    done = kept.promote(tmp_path / "run", model="ranker", smoke=False, allow_breaking=True)
    assert (done.version, done.before, done.after) == (3, (2,), (3,))
    assert kept.rollback("ranker").after == (2,)


def test_what_a_record_did_not_have_is_not_said_to_be_checked() -> None:
    record = servingrepo.open(Path(__file__).with_name("formats") / "1-first").show_version(
        "ranker@1"
    )
    assert record.tensors is None
    assert record.fingerprint is not None
    assert record.fingerprint.field("saved_model_checksum").verdict == "not checked"
