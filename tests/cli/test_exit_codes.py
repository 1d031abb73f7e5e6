from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from servingrepo import errors
from servingrepo.errors import ServingRepoError, every_error
from tests.support import command
from tools.exit_codes import exit_code_table

README = Path(__file__).resolve().parents[2] / "README.md"

BANDS: dict[type[ServingRepoError], int] = {
    errors.SettingsError: 10,
    errors.NoSavedModel: 20,
    errors.NoRepository: 30,
    errors.VersionDamaged: 30,
    errors.Locked: 40,
    errors.StorageFailed: 50,
    errors.EngineUnavailable: 60,
    errors.SmokeFailed: 70,
}
"""One error of each cause, and where its band starts."""


def test_every_error_has_a_slug_and_a_code_of_its_own() -> None:
    kinds = list(every_error())
    assert len(kinds) > 30
    for values in ([kind.slug for kind in kinds], [kind.exit_code for kind in kinds]):
        assert [one for one, count in Counter(values).items() if count > 1] == []


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.slug)
def test_every_error_has_a_stable_name_a_meaning_and_a_code_that_scripts_can_use(
    kind: type[ServingRepoError],
) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.slug)
    assert kind.__doc__
    assert "summary" in vars(kind), "the meaning must be its own, not its parent's"
    assert kind.summary == kind.summary.rstrip(".")
    assert kind.exit_code in {1, 2, 130} or 10 <= kind.exit_code < 90


@pytest.mark.parametrize("kind", list(BANDS), ids=lambda kind: kind.slug)
def test_the_bands_of_ten_are_the_causes(kind: type[ServingRepoError]) -> None:
    assert kind.exit_code // 10 * 10 == BANDS[kind]


def test_kinds_of_an_error_stay_in_its_band() -> None:
    for kind in every_error():
        parent = kind.__bases__[0]
        if parent is not ServingRepoError and issubclass(parent, ServingRepoError):
            assert kind.exit_code // 10 == parent.exit_code // 10


def test_the_table_has_a_row_for_every_error_in_the_order_of_the_codes() -> None:
    rows = [line.split("|")[1:4] for line in exit_code_table().splitlines()[2:]]
    codes = [int(row[0]) for row in rows]
    assert codes == sorted(codes)
    assert len(rows) == 1 + len(list(every_error()))


def test_readme_has_the_table_as_it_is_generated() -> None:
    found = re.search(
        r"<!-- exit-codes -->\n(.*?)<!-- /exit-codes -->", README.read_text(), re.DOTALL
    )
    assert found is not None, "README.md has no <!-- exit-codes --> … <!-- /exit-codes --> markers"
    assert found[1].strip() == exit_code_table().strip()


def test_a_command_ends_with_the_code_of_its_error(tmp_path: Path) -> None:
    for arguments, kind in (
        (["list"], errors.NoRepository),
        (["nosuch"], errors.UsageError),
        (["scan", "nothing"], errors.NoSavedModel),
        (["serve", "ranker", "--endpoint", "localhost:1"], errors.NoRepository),
        (["serve", "ranker", "--endpoint", "nonsense"], errors.UsageError),
        (["smoke", "./nothing"], errors.NoSavedModel),
    ):
        assert command(*arguments, cwd=tmp_path).code == kind.exit_code, arguments
