from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import servingrepo
from servingrepo.errors import ConfigInvalid
from servingrepo.modelconfig import entry
from servingrepo.repository.config import check_config, read_config, read_own_config
from servingrepo.repository.config_write import checked_server_root, rewrite

if TYPE_CHECKING:
    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


def edit(repo: OpenRepository, old: str, new: str) -> str:
    path = repo.value.layout.config
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path.read_text()


@pytest.fixture
def repo2(repo: OpenRepository, release: Release) -> OpenRepository:
    """A repository with two versions, the second one served."""
    release(1.0)
    release(2.0)
    return repo


def test_an_edit_is_kept_when_told_so_with_a_backup(repo2: OpenRepository) -> None:
    text = edit(repo2, "versions: 2", "versions: 1")
    written = rewrite(repo2.value, edit="take")
    assert written.backup is not None
    assert Path(written.backup).read_text() == text
    assert read_own_config(repo2.value)
    assert repo2.show("m").served == 1


def test_an_edit_is_undone_when_told_so_with_a_backup(repo2: OpenRepository) -> None:
    before = repo2.value.layout.config.read_text()
    text = edit(repo2, "versions: 2", "versions: 1")
    written = rewrite(repo2.value, edit="discard")
    assert written.changed
    assert "versions: 1" in written.diff
    assert written.backup is not None
    assert Path(written.backup).read_text() == text
    assert repo2.value.layout.config.read_text() == before


def test_an_edit_that_is_kept_is_in_the_history_so_that_rollback_knows_it(
    repo2: OpenRepository, release: Release
) -> None:
    release(3.0)
    repo2.mark_bad("m@3")
    edit(repo2, "versions: 3", "versions: 1")
    rewrite(repo2.value, edit="take")
    last = list(repo2.history("m"))[-1]
    assert (last.action, last.before, last.after) == ("config-write", (3,), (1,))
    assert (last.why, last.version) == ("an edit by hand was kept", 1)
    assert repo2.serve("m@2").before == (1,)
    assert repo2.rollback("m").after == (1,)


def test_an_edit_that_is_undone_is_in_the_history(repo2: OpenRepository) -> None:
    edit(repo2, "versions: 2", "versions: 1")
    rewrite(repo2.value, edit="discard")
    last = list(repo2.history("m"))[-1]
    assert (last.action, last.before, last.after) == ("config-write", (1,), (2,))
    repo2.value.layout.config.write_text("nonsense {")
    rewrite(repo2.value, edit="discard")
    assert [(one.before, one.after) for one in repo2.history("m")][-1] == ((), (2,))


def test_an_edit_that_changes_no_pins_is_no_event(repo2: OpenRepository) -> None:
    before = list(repo2.history())
    repo2.value.layout.config.write_text(repo2.value.layout.config.read_text() + "# by hand\n")
    rewrite(repo2.value, edit="take", dry_run=True)
    rewrite(repo2.value, edit="take")
    assert list(repo2.history()) == before


def test_the_config_of_others_that_is_taken_over_is_in_the_history(tmp_path: Path) -> None:
    config = tmp_path / "repo" / "models" / "models.config"
    config.parent.mkdir(parents=True)
    config.write_text(
        "model_config_list { config { name: 'old' base_path: '/models/old' model_platform: 'tensorflow' "
        "model_version_policy { specific { versions: 3 } } "
        "version_labels { key: 'stable' value: 3 } } }"
    )
    repo, _ = servingrepo.init(tmp_path / "repo")
    rewrite(repo.value, edit="take")
    (event,) = repo.history()
    assert (event.model, event.after, event.labels_after) == ("old", (3,), {"stable": 3})


def test_backups_of_two_edits_are_two_files(repo2: OpenRepository) -> None:
    backups = set()
    for _ in range(2):
        edit(repo2, "versions: 2", "versions: 1")
        backups.add(rewrite(repo2.value, edit="discard").backup)
    assert len(backups) == 2


@pytest.mark.parametrize("how", ["take", "discard"])
def test_without_an_edit_nothing_is_written_or_backed_up(how: str, repo2: OpenRepository) -> None:
    before = repo2.value.layout.config.stat()
    written = rewrite(repo2.value, edit=how)  # type: ignore[arg-type]
    assert not written.changed
    assert written.backup is None
    assert repo2.value.layout.config.stat() == before


def test_a_dry_run_says_what_would_change_and_changes_nothing(repo2: OpenRepository) -> None:
    text = edit(repo2, "versions: 2", "versions: 1")
    own = sorted(repo2.value.layout.own.iterdir())
    written = rewrite(repo2.value, edit="discard", dry_run=True)
    assert written.dry_run
    assert written.diff
    assert written.backup is None
    assert repo2.value.layout.config.read_text() == text
    assert sorted(repo2.value.layout.own.iterdir()) == own


def test_bytes_that_are_no_text_are_undone_shown_and_kept(repo2: OpenRepository) -> None:
    before = repo2.value.layout.config.read_text()
    repo2.value.layout.config.write_bytes(b"\xff\xfe# mine\n")
    written = rewrite(repo2.value, edit="discard")
    assert written.backup is not None
    assert Path(written.backup).read_bytes() == b"\xff\xfe# mine\n"
    assert msgspec.json.encode(written)
    assert repo2.value.layout.config.read_text() == before


def test_there_is_nothing_to_go_back_to_in_a_config_of_others(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "models.config").write_text("model_config_list {}\n")
    repo, _ = servingrepo.init(tmp_path)
    with pytest.raises(ConfigInvalid, match="has never written"):
        rewrite(repo.value, edit="discard")
    rewrite(repo.value, edit="take")
    assert read_own_config(repo.value)


def test_an_edit_that_a_server_would_refuse_is_not_taken(repo2: OpenRepository) -> None:
    edit(repo2, "model_config_list {", "model_config_list { config { name: 'x' } config {}")
    text = repo2.value.layout.config.read_text()
    with pytest.raises(ConfigInvalid) as caught:
        rewrite(repo2.value, edit="take")
    assert len(caught.value.problems) > 1
    assert repo2.value.layout.config.read_text() == text


def test_a_new_server_root_moves_our_base_paths_and_not_those_of_others(
    repo2: OpenRepository, release: Release
) -> None:
    release(1.0, model="other")
    edit(
        repo2,
        "model_config_list {",
        'model_config_list {\n  config { name: "theirs" base_path: "/elsewhere/theirs" '
        'model_platform: "tensorflow" }',
    )
    rewrite(repo2.value, edit="take")
    written = rewrite(repo2.value, server_root="/srv/m/")
    assert written.server_root == "/srv/m"
    again = servingrepo.open(repo2.root)
    assert again.value.server_root == "/srv/m"
    config = read_own_config(again.value)
    paths = {name: entry(config, name) for name in ("m", "other", "theirs")}
    assert {name: one.base_path for name, one in paths.items() if one is not None} == {
        "m": "/srv/m/m",
        "other": "/srv/m/other",
        "theirs": "/elsewhere/theirs",
    }
    assert again.show("m").served == 2
    assert [one for one in check_config(again.value, config) if one.severity == "error"] == []


@pytest.mark.parametrize("server_root", ["models", "", "~/models"])
def test_a_bad_server_root_is_refused_and_nothing_changes(
    server_root: str, repo2: OpenRepository
) -> None:
    before = repo2.value.layout.format.read_bytes(), repo2.value.layout.config.read_bytes()
    with pytest.raises(ConfigInvalid):
        rewrite(repo2.value, server_root=server_root)
    assert before == (
        repo2.value.layout.format.read_bytes(),
        repo2.value.layout.config.read_bytes(),
    )


@pytest.mark.parametrize(
    ("given", "expected"), [("/models", "/models"), ("/srv/m/", "/srv/m"), ("/a//", "/a")]
)
def test_a_server_root_has_no_slash_at_its_end(given: str, expected: str) -> None:
    assert checked_server_root(given) == expected


def test_labels_survive_a_rewrite(repo2: OpenRepository) -> None:
    edit(repo2, "model_platform", 'version_labels { key: "stable" value: 2 }\n    model_platform')
    rewrite(repo2.value, edit="take")
    rewrite(repo2.value, server_root="/srv")
    found = entry(read_config(repo2.value).config, "m")
    assert found is not None
    assert found.labels == {"stable": 2}
    assert repo2.show("m").labels == {"stable": 2}
