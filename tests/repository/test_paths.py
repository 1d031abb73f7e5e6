"""A model whose folder is not its name, and a models directory that is not `<root>/models`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import servingrepo
from servingrepo.errors import (
    BadName,
    NewerFormat,
    RepositoryChanged,
    RepositoryDamaged,
)
from servingrepo.modelconfig.names import check_path
from servingrepo.repository.config import check_config, folder_of, read_config, unseen_base_paths
from servingrepo.repository.config_write import rewrite
from servingrepo.repository.layout import STAGING_NAME, Layout
from servingrepo.repository.protection import served_folders
from servingrepo.repository.records import (
    SCHEMA,
    Format,
    ModelState,
    VersionRecord,
    decode,
    encode,
    encode_marker,
    load,
)
from servingrepo.repository.repository import (
    load_marker,
    locked,
    make_durable,
    new_txid,
    save_marker,
    save_paths,
    with_paths,
)
from servingrepo.repository.retention import Keep
from servingrepo.storage.disk import Disk
from servingrepo.storage.faults import Faults
from servingrepo.testing.exports import write_export

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from tests.repository.conftest import Release


def move(repo: OpenRepository, **paths: str) -> OpenRepository:
    """Give models their paths, as `adopt` does."""
    with locked(repo.value):
        save_paths(with_paths(repo.value, paths))
    return repo


@pytest.fixture
def pushed(repo: OpenRepository, release: Release) -> OpenRepository:
    """A repository with three versions of `m` at push/m, and one of `n` at n."""
    move(repo, m="push/m")
    for slope in (1.0, 2.0, 3.0):
        release(slope)
    release(4.0, model="n")
    return repo


# the marker ------------------------------------------------------------------------------------------


FORMAT_1 = b"""{
 "schema": 1,
 "server_root": "/models",
 "created": "2026-05-10T12:00:00+00:00",
 "created_by": "servingrepo 1.0",
 "server_roots_before": []
}
"""


def test_a_marker_without_paths_stays_format_1(repo: OpenRepository) -> None:
    """Byte for byte: an older servingrepo goes on with a repository in which nothing is elsewhere."""
    path = repo.value.layout.format
    marker = decode(FORMAT_1, Format, path)
    assert encode_marker(marker) == FORMAT_1
    path.write_bytes(FORMAT_1)
    move(repo, m="push/m")
    assert path.read_bytes() != FORMAT_1
    move(repo, m="m")
    assert path.read_bytes() == FORMAT_1
    rewrite(repo.value, server_root="/srv")
    assert path.read_bytes() == FORMAT_1.replace(b'"/models"', b'"/srv"')


def test_a_marker_with_paths_is_format_2(repo: OpenRepository) -> None:
    move(repo, m="push/m", a="b")
    marker = msgspec.json.decode(repo.value.layout.format.read_bytes())
    assert marker["schema"] == 2
    assert list(marker["paths"].items()) == [("a", "b"), ("m", "push/m")]
    assert marker["models"] == ""
    assert servingrepo.open(repo.root).value == repo.value


def test_an_older_servingrepo_refuses_format_2(repo: OpenRepository) -> None:
    """It knows no format above 1: its code is what reads every other record today."""
    move(repo, m="push/m")
    data = repo.value.layout.format.read_bytes()

    class OlderFormat(msgspec.Struct):
        schema: int = SCHEMA
        server_root: str = ""

    with pytest.raises(NewerFormat, match="has format 2; this servingrepo knows formats up to 1"):
        decode(data, OlderFormat, repo.value.layout.format)


def test_other_records_stay_format_1(pushed: OpenRepository) -> None:
    layout = pushed.value.layout
    state, record = load(layout.state("m"), ModelState), load(layout.record("m", 1), VersionRecord)
    assert state is not None
    assert record is not None
    assert (state.schema, record.schema) == (1, 1)
    newer = encode(msgspec.structs.replace(state, schema=2))
    with pytest.raises(NewerFormat, match="up to 1"):
        decode(newer, ModelState, layout.state("m"))


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": 1, "paths": {"m": "push/m"}},
        {"schema": 2, "models": "models"},
        {"schema": 2, "paths": {"m": "../m"}},
        {"schema": 2, "paths": {"m": "/etc"}},
        {"schema": 2, "paths": {"../m": "m"}},
        {"schema": 2, "paths": {"a": "push", "b": "push/b"}},
        {"schema": 2, "paths": {"a": "push", "b": "push"}},
        {"schema": 2, "paths": {"m": 7}},
    ],
    ids=["format 1", "relative", "above", "absolute", "name", "inside", "same", "number"],
)
def test_a_marker_that_leads_astray_is_damaged(
    fields: dict[str, object], repo: OpenRepository
) -> None:
    path = repo.value.layout.format
    marker = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**marker, **fields}))
    with pytest.raises(RepositoryDamaged, match=r"format\.json"):
        servingrepo.open(repo.root)


def test_the_marker_is_replaced_once_and_durably(repo: OpenRepository, tmp_path: Path) -> None:
    """However many models get paths: one write, after which a power loss takes nothing back."""
    record = tmp_path / "steps"
    disk = Disk(faults=Faults.parse(f"record={record}"))
    watched = msgspec.structs.replace(repo.value, disk=disk)
    save_paths(with_paths(watched, {f"m{one}": f"push/m{one}" for one in range(50)}))
    steps = [line.partition("@")[0] for line in record.read_text().splitlines()]
    assert steps == [f"format.{one}" for one in FORMAT_STEPS]
    assert len(servingrepo.open(repo.root).value.layout.paths) == 50


FORMAT_STEPS = ("before-write", "before-sync", "before-rename", "after-rename", "done")


# paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["push/lr", "saved_models", "a/b/c/d", "_x/my models", "v1/1.0"])
def test_a_path_that_a_folder_can_have_is_taken(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/push", "push/", "push//lr", ".", "..", "push/../lr", ".push/lr", "push/.lr"),
        *("7", "push/7", "push/007", "7/lr", "push/ -3", "models.config", "push/l\nr", "a/\udc80"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(BadName, match="not a model's path"):
        check_path(path)


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        ({"a": "m"}, "the path of m"),
        ({"a": "m/inner"}, "the path of m"),
        ({"a": "M"}, "the path of m"),
        ({"a": "push/x", "b": "push/x"}, "the path of"),
        ({"a": "push", "b": "push/x"}, "the path of"),
        ({"a": "push/1"}, "for a version"),
        ({"1": "push/x"}, "not a model name"),
    ],
)
def test_no_path_lies_in_another_models_path(
    paths: dict[str, str], why: str, repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    before = repo.value.layout.format.read_bytes()
    with pytest.raises(BadName, match=why):
        with_paths(repo.value, paths)
    assert repo.value.layout.format.read_bytes() == before


def test_a_model_that_is_in_nobodys_way_keeps_its_path(
    repo: OpenRepository, release: Release
) -> None:
    release(1.0)
    assert with_paths(repo.value, {"a": "push/m"}).layout.path("a") == "push/m"
    assert with_paths(repo.value, {"m": "other", "a": "m"}).layout.paths == {"m": "other", "a": "m"}


def test_the_layout_follows_the_path(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "r", models_at=tmp_path / "shelf", paths={"lr": "push/eu/lr"})
    assert layout.config == tmp_path / "shelf" / "models.config"
    assert layout.folders("lr") == (
        tmp_path / "shelf" / "push",
        tmp_path / "shelf" / "push" / "eu",
        tmp_path / "shelf" / "push" / "eu" / "lr",
    )
    assert layout.folders("m") == (tmp_path / "shelf" / "m",)
    assert layout.version("lr", 7) == layout.model("lr") / "7"
    assert layout.staging("lr", "x") == layout.model("lr") / STAGING_NAME / "x"
    assert layout.trash("lr").parent == layout.model("lr")
    assert layout.record("lr", 7) == tmp_path / "r" / ".servingrepo" / "models" / "lr" / "7.json"


# folders and names -----------------------------------------------------------------------------------


def test_folders_on_the_way_are_no_models(pushed: OpenRepository) -> None:
    assert [(row.model, row.versions, row.foreign) for row in pushed.list()] == [
        ("m", (1, 2, 3), ()),
        ("n", (1,), ()),
    ]
    assert not (pushed.value.layout.models / "m").exists()
    assert pushed.value.base_path("m") == "/models/push/m"


def test_what_nobody_manages_is_still_listed(pushed: OpenRepository) -> None:
    (pushed.value.layout.models / "push" / "9").mkdir()
    (pushed.value.layout.models / "other" / "1").mkdir(parents=True)
    rows = {row.model: (row.ours, row.foreign) for row in pushed.list() if not row.ours}
    assert rows == {"push": (False, (9,)), "other": (False, (1,))}


def test_a_folder_that_has_a_models_name_is_noted(pushed: OpenRepository) -> None:
    folder = pushed.value.layout.models / "m"
    assert pushed.status().notes == ()
    (folder / "8").mkdir(parents=True)
    (note,) = pushed.status().notes
    assert str(folder) in note
    assert str(pushed.value.layout.model("m")) in note
    assert pushed.list()[0].versions == (1, 2, 3)


@pytest.mark.parametrize("name", ["push", "Push", "ranker"])
def test_a_new_model_does_not_get_anothers_folder(
    name: str, pushed: OpenRepository, release: Release
) -> None:
    move(pushed, x="ranker")
    with pytest.raises(BadName, match=f"{name} would"):
        release(7.0, model=name)
    assert name not in pushed.models()


def test_the_repository_is_not_published_through_links(
    pushed: OpenRepository, release: Release
) -> None:
    push = pushed.value.layout.models / "push"
    push.rename(push.with_name("real"))
    push.symlink_to("real")
    with pytest.raises(RepositoryDamaged, match=r"push is a link, to real"):
        release(7.0)
    (note,) = pushed.status().notes
    assert note == f"{push} is a link to real"


def test_recovery_cleans_up_below_a_path(pushed: OpenRepository) -> None:
    layout = pushed.value.layout
    base = layout.model("m")
    txid = new_txid(pushed.value)
    (base / STAGING_NAME / txid / "9").mkdir(parents=True)
    for place in (base, base.parent, layout.models):
        (place / ".x.0badc0de.tmp").mkdir()
    done = pushed.recover()
    assert [(one.model, one.outcome) for one in done if one.model == "m"] == [
        ("m", "left staging directory removed")
    ]
    assert len(done) == 4
    assert base.is_dir()
    assert list(layout.models.rglob("*.tmp")) == []
    assert list((base / STAGING_NAME).iterdir()) == []


def test_recovery_removes_nothing_behind_a_link(pushed: OpenRepository, tmp_path: Path) -> None:
    layout = pushed.value.layout
    away = tmp_path / "away"
    (layout.models / "push").rename(away)
    (layout.models / "push").symlink_to(away)
    staged = away / "m" / STAGING_NAME / new_txid(pushed.value)
    unfinished = away / "m" / ".x.0badc0de.tmp"
    for place in (staged, unfinished):
        place.mkdir(parents=True)
    pushed.recover()
    assert staged.is_dir()
    assert unfinished.is_dir()


def test_what_a_killed_command_renamed_is_made_durable(
    pushed: OpenRepository,
) -> None:
    synced: list[Path] = []

    class Watching(Disk, frozen=True):
        def sync_directory(self, path: Path) -> None:
            synced.append(path)

    pushed.prune("m", keep=Keep(last=1))
    make_durable(msgspec.structs.replace(pushed.value, disk=Watching()))
    base = pushed.value.layout.model("m")
    assert {base.parent, base, base / ".trash", pushed.value.layout.model("n")} <= {*synced}


# base paths ------------------------------------------------------------------------------------------


def test_a_base_path_below_the_server_root_is_seen(repo: OpenRepository) -> None:
    models = repo.value.layout.models
    seen = {
        "/models/m": models / "m",
        "/models//push/m/": models / "push/m",
        "file:///models/m": models / "m",
    }
    for base_path, folder in seen.items():
        assert folder_of(repo.value, base_path) == folder
    for base_path in (
        "/models",
        "/models/",
        "/modelsx/m",
        "/srv/m",
        "gs://models/m",
        "/models/../m",
    ):
        assert folder_of(repo.value, base_path) is None, base_path
    everything = msgspec.structs.replace(repo.value, server_root="")
    assert folder_of(everything, "/m") == models / "m"


def entries(repo: OpenRepository, **base_paths: str) -> None:
    """Write a config by hand that serves version 1 from these base paths."""
    text = " ".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 1 } } }"
        for name, path in base_paths.items()
    )
    repo.value.layout.config.write_text(f"model_config_list {{ {text} }}\n")


def test_the_config_is_checked_at_nested_base_paths(repo: OpenRepository, tmp_path: Path) -> None:
    write_export(repo.value.layout.models / "push" / "m" / "1")
    entries(repo, a="/models/push/m", b="/models/push/gone", c="/srv/c")
    config = read_config(repo.value).config
    assert unseen_base_paths(repo.value, config) == ("/srv/c",)
    found = [str(one) for one in check_config(repo.value, config) if one.severity == "error"]
    assert len(found) == 1
    assert "/models/push/gone does not exist" in found[0]


def test_entries_of_a_path_are_found_under_any_name(pushed: OpenRepository) -> None:
    entries(
        pushed,
        a="/models/push/m",
        b="/elsewhere/m",
        c="/models/n",
        d="/models/gone/m",
        m="/x",
    )
    config = read_config(pushed.value).config
    assert [one.name for one in served_folders(pushed.value, config).of(pushed.value, "m")] == [
        "a",
        "b",
        "d",
        "m",
    ]
    (pushed.value.layout.models / "gone" / "m").mkdir(parents=True)
    assert [one.name for one in served_folders(pushed.value, config).of(pushed.value, "m")] == [
        "a",
        "b",
        "m",
    ]
    (pushed.value.layout.models / "gone" / "m").rmdir()
    (pushed.value.layout.models / "gone" / "m").symlink_to("../push/m")
    assert [one.name for one in served_folders(pushed.value, config).of(pushed.value, "m")] == [
        "a",
        "b",
        "d",
        "m",
    ]


def test_a_new_server_root_moves_paths_too(pushed: OpenRepository) -> None:
    rewrite(pushed.value, server_root="/srv")
    text = pushed.value.layout.config.read_text()
    assert 'base_path: "/srv/push/m"' in text
    assert 'base_path: "/srv/n"' in text
    assert pushed.list()[0].elsewhere == ""


# changes meanwhile -----------------------------------------------------------------------------------


def test_a_writer_stops_when_models_were_moved(pushed: OpenRepository) -> None:
    """It would look for versions, and recover what others left, where they are no longer."""
    before = pushed.value
    with locked(before):
        save_paths(with_paths(before, {"x": "push/x"}))
    history = before.layout.history.read_bytes()
    for stale in (before, msgspec.structs.replace(pushed.value, server_root="/srv")):
        with pytest.raises(RepositoryChanged, match=r"models of .* lie") as caught, locked(stale):
            pass
        assert (caught.value.exit_code, caught.value.hint) == (41, "run this one again")
    assert before.layout.history.read_bytes() == history
    pushed.hold("m")


def test_a_writer_that_stops_makes_durable_what_was_left(pushed: OpenRepository) -> None:
    """A kill under the lock is known by the name in its file, which the next holder takes out."""
    stale = pushed.value
    move(pushed, x="push/x")
    stale.layout.lock.write_text("{}")
    synced: list[Path] = []

    class Watching(Disk, frozen=True):
        def sync_directory(self, path: Path) -> None:
            synced.append(path)

    with (
        pytest.raises(RepositoryChanged),
        locked(msgspec.structs.replace(stale, disk=Watching())),
    ):
        pass
    assert stale.layout.model("m") in synced


def test_an_opened_repository_sees_what_was_moved(pushed: OpenRepository, release: Release) -> None:
    """A Python program keeps its repository for weeks; commands move models meanwhile."""
    other = servingrepo.open(pushed.root)
    move(other, x="push/x")
    assert release(5.0) == 4
    assert pushed.value.layout.path("x") == "push/x"


def test_a_promotion_stops_when_models_are_moved_meanwhile(
    pushed: OpenRepository, tmp_path: Path
) -> None:
    write_export(tmp_path / "late" / "saved_model", slope=9.0)

    def meanwhile() -> None:
        move(pushed, x="push/x")

    with pytest.raises(RepositoryChanged):
        pushed.promote(tmp_path / "late", model="m", smoke=False, run_read=meanwhile)
    assert pushed.list()[0].versions == (1, 2, 3)
    pushed.recover()
    assert list((pushed.value.layout.model("m") / STAGING_NAME).iterdir()) == []
    assert pushed.promote(tmp_path / "late", model="m", smoke=False).version == 5


# a models directory elsewhere ------------------------------------------------------------------------


def test_the_models_directory_may_be_elsewhere(
    repo: OpenRepository, release: Release, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    repo.value.layout.models.rename(shelf)
    marker = load_marker(repo.value)
    assert marker is not None
    with locked(repo.value):
        save_marker(repo.value, msgspec.structs.replace(marker, models=str(shelf)))
    assert (release(1.0), release(2.0)) == (1, 2)
    assert sorted(one.name for one in shelf.iterdir()) == ["m", "models.config"]
    assert repo.rollback("m").after == (1,)
    assert [one.ok for one in repo.verify("m")] == [True, True]
    assert repo.recover() == ()
    assert not (repo.root / "models").exists()
