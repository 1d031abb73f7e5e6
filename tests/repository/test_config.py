from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servingrepo.errors import ConfigEdited, ConfigInvalid, ServingRepoError, StorageFailed
from servingrepo.modelconfig import Stamp, entry, parse
from servingrepo.repository.config import (
    check_config,
    last_text,
    pins,
    read_config,
    read_own_config,
    read_steadily,
    write_config,
)
from servingrepo.repository.config_write import rewrite
from servingrepo.repository.repository import need_state
from servingrepo.repository.snapshot import read_snapshot, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.repository.config import ConfigFile
    from tests.repository.conftest import Release

FOREIGN = """model_config_list {
  config { name: "theirs" base_path: "/elsewhere/theirs" model_platform: "tensorflow" }
}
"""


@pytest.fixture
def repo2(repo: OpenRepository, release: Release) -> OpenRepository:
    """A repository with two versions, the second one served."""
    release(1.0)
    release(2.0)
    return repo


def writers(repo: OpenRepository) -> dict[str, Callable[[], object]]:
    return {
        "serve": lambda: repo.serve("m@1"),
        "unserve": lambda: repo.unserve("m"),
        "rollback": lambda: repo.rollback("m"),
        "config write": lambda: rewrite(repo.value),
    }


def test_what_is_served_is_the_highest_pin(repo2: OpenRepository) -> None:
    config = read_own_config(repo2.value)
    assert pins(config, "m") == (2,)
    assert read_snapshot(repo2.value, "m").top == 2
    assert read_snapshot(repo2.value, "other").top is None
    found = entry(config, "m")
    assert found is not None
    assert found.base_path == "/models/m"


@pytest.mark.parametrize("name", ["serve", "unserve", "rollback", "config write"])
def test_an_edit_by_hand_is_detected_shown_and_never_overwritten(
    name: str, repo2: OpenRepository
) -> None:
    path = repo2.value.layout.config
    path.write_text(path.read_text().replace("versions: 2", "versions: 1"))
    edited = path.read_bytes()
    with pytest.raises(ConfigEdited, match="was edited by hand") as caught:
        writers(repo2)[name]()
    diff = "\n".join(caught.value.problems)
    assert "-" in diff
    assert "versions: 2" in diff
    assert "versions: 1" in diff
    assert caught.value.hint is not None
    assert "--take-edit" in caught.value.hint
    assert path.read_bytes() == edited
    assert list(repo2.value.layout.journal.iterdir()) == []


def test_an_edited_config_stops_a_promotion_before_the_copy(
    repo2: OpenRepository, release: Release
) -> None:
    path = repo2.value.layout.config
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(ConfigEdited):
        release(3.0)
    assert repo2.show("m").highest == 2


def test_an_edited_config_is_still_read(repo2: OpenRepository) -> None:
    path = repo2.value.layout.config
    path.write_text(path.read_text().replace("versions: 2", "versions: 1"))
    assert repo2.show("m").served == 1
    assert read_config(repo2.value).stamp is Stamp.EDITED


def test_a_config_of_others_is_refused_until_it_is_taken_over(
    repo2: OpenRepository, release: Release
) -> None:
    path = repo2.value.layout.config
    path.write_text(FOREIGN)
    repo2.value.layout.last_config.unlink()
    assert read_config(repo2.value).stamp is Stamp.FOREIGN
    with pytest.raises(ConfigEdited, match="was not written by servingrepo"):
        repo2.serve("m@1")
    taken = rewrite(repo2.value, edit="take")
    assert taken.backup is not None
    repo2.serve("m@1")
    config = read_own_config(repo2.value)
    theirs = entry(config, "theirs")
    assert theirs is not None
    assert theirs.base_path == "/elsewhere/theirs"
    assert pins(config, "m") == (1,)


@pytest.mark.parametrize("name", ["serve", "unserve", "rollback", "config write"])
def test_a_config_that_was_removed_is_an_edit_and_is_not_replaced_by_one_model(
    name: str, repo2: OpenRepository, release: Release
) -> None:
    release(1.0, model="other")
    repo2.value.layout.config.unlink()
    assert repo2.show("m").served is None
    with pytest.raises(ConfigEdited, match="was removed"):
        writers(repo2)[name]()
    assert not repo2.value.layout.config.exists()
    assert rewrite(repo2.value, edit="discard").backup is None
    assert repo2.show("m").served == 2
    assert repo2.show("other").served == 1


@pytest.mark.parametrize(
    "text",
    ["model_config_list {", "nonsense: 1", "model_config_list { config { name: 7 } }", "\x00"],
)
def test_a_config_edited_into_nonsense_is_refused_with_both_ways_out(
    text: str, repo2: OpenRepository
) -> None:
    path = repo2.value.layout.config
    path.write_text(text)
    for call in writers(repo2).values():
        with pytest.raises(ServingRepoError) as caught:
            call()
        assert caught.value.exit_code in {36, 37}
        assert caught.value.hint is not None
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("data", "said"), [(b"\xff\xfe", "UTF-16"), (b"#\n# \xf6", ":2:3: .*0xF6")]
)
def test_a_config_that_is_not_utf8_is_refused(
    repo2: OpenRepository, data: bytes, said: str
) -> None:
    repo2.value.layout.config.write_bytes(data)
    with pytest.raises(ConfigInvalid, match=said):
        repo2.serve("m@1")


def test_a_config_that_is_a_directory_is_a_storage_error(repo2: OpenRepository) -> None:
    repo2.value.layout.config.unlink()
    repo2.value.layout.config.mkdir()
    for call in writers(repo2).values():
        with pytest.raises(StorageFailed):
            call()


def test_a_config_is_written_byte_stable_with_a_copy_and_not_when_equal(
    repo2: OpenRepository,
) -> None:
    path = repo2.value.layout.config
    text = path.read_text()
    before = path.stat().st_ino
    assert not write_config(repo2.value, parse(text, source="x"))
    assert path.stat().st_ino == before
    assert last_text(repo2.value) == text
    repo2.serve("m@1")
    repo2.serve("m@2")
    assert path.read_text() == text
    assert last_text(repo2.value) == text


def test_check_finds_versions_that_are_not_on_disk(repo2: OpenRepository, tmp_path: Path) -> None:
    assert list(check_config(repo2.value, read_own_config(repo2.value))) == []
    version = repo2.value.layout.version("m", 2)
    version.rename(tmp_path / "gone")
    found = check_config(repo2.value, read_own_config(repo2.value))
    assert any(one.severity == "error" and one.model == "m" for one in found)


def test_serving_a_version_whose_files_are_lost_is_refused(repo2: OpenRepository) -> None:
    (repo2.value.layout.version("m", 1) / "saved_model.pb").unlink()
    with pytest.raises(ServingRepoError) as caught:
        repo2.rollback("m")
    assert caught.value.exit_code == 35
    assert repo2.show("m").served == 2


def test_a_look_during_which_the_file_changed_is_taken_again(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    release(2.0)
    looks: list[int | None] = []

    def look(file: ConfigFile) -> tuple[int | None, bool]:
        version = snapshot_of(repo.value, "m", file.config).top
        looks.append(version)
        if len(looks) == 1:
            repo.rollback("m")  # re-points and marks 2 bad, between our two reads
        return version, version in need_state(repo.value, "m").bad

    assert read_steadily(repo.value, look) == (1, False)
    assert looks == [2, 1]


def test_a_file_that_never_stands_still_is_looked_at_a_few_times_only(repo: OpenRepository) -> None:
    looks = 0

    def look(_: ConfigFile) -> int:
        nonlocal looks
        looks += 1
        path = repo.value.layout.config
        path.write_text(path.read_text() + "#\n")
        return looks

    assert read_steadily(repo.value, look) == looks < 100


def test_all_entries_of_one_base_path_count(repo2: OpenRepository) -> None:
    repo = repo2.value
    broken = repo.layout.version("m", 1)
    (broken / "saved_model.pb").unlink()
    twin = (
        'config { name: "twin" base_path: "/models/m" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 1 } } }"
    )
    text = repo.layout.config.read_text().rstrip().removesuffix("}")
    found = check_config(repo, parse(f"{text} {twin} }}"))
    assert [(one.model, one.slug) for one in found if one.severity == "error"] == [
        ("twin", "cannot-load")
    ]
