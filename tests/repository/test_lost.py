from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import NoSuchVersion
from servingrepo.repository import journal
from servingrepo.repository.journal import Intent
from servingrepo.repository.repository import me
from servingrepo.repository.retention import Keep
from servingrepo.repository.verification import is_lost, lost_versions
from tests.support import command

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository


@pytest.fixture
def without_four(five: OpenRepository) -> OpenRepository:
    """Five versions, of which somebody removed one by hand."""
    shutil.rmtree(five.value.layout.version("m", 4))
    return five


def test_a_version_whose_directory_somebody_removed_is_damaged(
    without_four: OpenRepository,
) -> None:
    found = {one.subject: one for one in without_four.verify()}
    assert [key for key, one in found.items() if not one.ok] == ["m@4"]
    assert "no command of servingrepo took it" in found["m@4"].problems[0]
    assert found["m@4"].not_checked
    done = command("--root", without_four.root, "verify", "m")
    assert done.code == 35
    assert "m@4: DAMAGED" in done.out
    assert "m@5: ok" in done.out


def test_a_model_that_lost_its_directory_is_damaged(five: OpenRepository) -> None:
    shutil.rmtree(five.value.layout.model("m"))
    assert [one.ok for one in five.verify()] == [False] * 5
    assert [one.ok for one in five.verify(quick=True)] == [False] * 5


def test_what_commands_took_is_not_lost(five: OpenRepository) -> None:
    five.prune("m", keep=Keep(last=1))
    assert lost_versions(five.value, "m") == ()
    five.prune("m", keep=Keep(last=1), empty_trash=True)
    assert lost_versions(five.value, "m") == ()


def test_a_number_that_an_intent_names_is_not_lost(without_four: OpenRepository) -> None:
    """It is being published, or was when its command died: recover removes the record then."""
    repo = without_four.value
    assert is_lost(repo, "m", 4)
    intent = Intent(txid="0" * 26, command="promote", owner=me(), model="m", version=4)
    with journal.declare(repo.disk, repo.layout.intent(intent.txid), intent):
        assert not is_lost(repo, "m", 4)
        assert lost_versions(repo, "m") == ()
        with pytest.raises(NoSuchVersion):
            without_four.verify("m@4")
    assert lost_versions(repo, "m") == (4,)


def test_a_record_that_cannot_be_read_hides_no_other_version(five: OpenRepository) -> None:
    five.value.layout.record("m", 2).write_bytes(b"{")
    found = {one.subject: one.ok for one in five.verify()}
    assert found == {"m@1": True, "m@2": False, "m@3": True, "m@4": True, "m@5": True}
    assert five.size() > 0
