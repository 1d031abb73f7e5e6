"""adopt: models whose base path is another folder below the server root than their name keep it as their path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import servingrepo
from servingrepo.errors import BadName, ConfigInvalid, NewerFormat, RepositoryChanged
from servingrepo.modelconfig import entry as entry_of
from servingrepo.repository.config import read_config
from servingrepo.repository.records import SCHEMA, decode
from servingrepo.repository.repository import load_state
from servingrepo.testing.exports import write_export
from tests.support import Outcome, command, new_repository
from tests.verbs.trees import entry, facts, pins, taken, versions, write_config

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository

LABELS = (
    ' version_labels { key: "stable" value: 20240501 }'
    ' version_labels { key: "canary" value: 20240601 }'
)


def samples(root: Path) -> tuple[str, str]:
    """Write models/push/lr, served as lr with labels, and models/saved_models, served as email_model."""
    models = root / "models"
    versions(models / "push" / "lr", 20240501, 20240601)
    versions(models / "saved_models", 1, 2)
    return (
        entry(root, "lr", pins(20240501, 20240601) + LABELS, base_path=f"{models}/push/lr"),
        entry(root, "email_model", base_path=f"{models}/saved_models"),
    )


def adopted(root: Path) -> OpenRepository:
    repo = taken(root, *samples(root))
    repo.adopt((), all=True)
    return repo


def run(repo: OpenRepository, *arguments: str | Path, code: int = 0) -> Outcome:
    done = command("--root", repo.root, *arguments)
    assert done.code == code, (arguments, done)
    return done


def why(repo: OpenRepository, model: str) -> str:
    """Return why a model stays unmanaged."""
    left = repo.adopt((), all=True, dry_run=True).left
    return next(one.reason for one in left if one.model == model)


def test_a_base_path_becomes_the_models_path(tmp_path: Path) -> None:
    """As models/push/lr of an entry lr, and models/saved_models of an entry email_model."""
    repo = taken(tmp_path, *samples(tmp_path))
    before = facts(tmp_path)
    marker = repo.value.layout.format.read_bytes()
    shown = repo.adopt((), all=True, dry_run=True)
    assert repo.value.layout.format.read_bytes() == marker
    done = repo.adopt((), all=True)
    assert facts(tmp_path) == before
    assert [(one.model, one.path, one.versions, one.pins, one.entry) for one in done.models] == [
        ("email_model", "saved_models", (1, 2), (2,), "pinned"),
        ("lr", "push/lr", (20240501, 20240601), (20240501, 20240601), "kept"),
    ]
    assert [one.path for one in shown.models] == ["saved_models", "push/lr"]
    assert repo.value.layout.paths == {"email_model": "saved_models", "lr": "push/lr"}
    for model, path in repo.value.layout.paths.items():
        found = entry_of(read_config(repo.value).config, model)
        assert found is not None
        assert found.base_path == repo.value.base_path(model) == f"{tmp_path}/models/{path}"
    assert repo.show_version("lr@label:stable").version == 20240501
    assert [(row.model, row.versions, row.foreign, row.elsewhere) for row in repo.list()] == [
        ("email_model", (1, 2), (), ""),
        ("lr", (20240501, 20240601), (), ""),
    ]
    again = repo.adopt((), all=True)
    assert (again.models, again.left) == ((), ())


@pytest.mark.parametrize("spelled", ["{models}//push/lr/", "file://{models}/push/./lr"])
def test_a_base_path_keeps_its_spelling(spelled: str, tmp_path: Path) -> None:
    """Only a new server root moves a base path; a server would load everything anew for another one."""
    base_path = spelled.format(models=tmp_path / "models")
    versions(tmp_path / "models" / "push" / "lr", 1)
    repo = taken(tmp_path, entry(tmp_path, "lr", base_path=base_path))
    repo.adopt(["lr"])
    found = entry_of(read_config(repo.value).config, "lr")
    assert found is not None
    assert (found.base_path, found.versions) == (base_path, (1,))
    assert repo.value.layout.path("lr") == "push/lr"
    assert [(row.ours, row.elsewhere) for row in repo.list()] == [(True, "")]


def test_an_older_servingrepo_refuses_adopted_paths(tmp_path: Path) -> None:
    """It knows no format above 1, and would look for versions in other folders. After an undo it may go on."""

    class OlderFormat(msgspec.Struct):
        schema: int = SCHEMA
        server_root: str = ""

    repo = taken(tmp_path, *samples(tmp_path))
    path = repo.value.layout.format
    before = path.read_bytes()
    repo.adopt((), all=True)
    with pytest.raises(NewerFormat) as caught:
        decode(path.read_bytes(), OlderFormat, path)
    assert caught.value.exit_code == 31
    repo.undo_adoption()
    assert path.read_bytes() == before
    assert decode(before, OlderFormat, path).server_root == repo.value.server_root


def test_every_command_works_on_adopted_paths(tmp_path: Path) -> None:
    repo = adopted(tmp_path)
    runs = versions(tmp_path / "runs", 1, 2, 3, 4)
    base = tmp_path / "models" / "push" / "lr"
    promote = ("--no-smoke", "-q", "--model")
    run(repo, "reload", "--reload", "poll")
    assert "agrees on disk" in run(repo, "status").out
    assert "20240601" in run(repo, "show", "lr").out
    assert run(repo, "verify", "lr", "email_model").out.count("ok") >= 4
    assert run(repo, "diff", "lr@20240501", "lr@20240601").code == 0
    assert run(repo, "promote", runs / "3", *promote, "lr").out == "20240602\n"
    assert (base / "20240602" / "saved_model.pb").is_file()
    assert "lr: 20240602 > 20240601" in run(repo, "rollback", "lr").out
    run(repo, "hold", "lr")
    assert run(repo, "promote", runs / "4", *promote, "lr").out == "20240603\n"
    assert repo.show("lr").served == 20240601
    run(repo, "release-hold", "lr")
    run(repo, "label", "set", "lr@20240603", "canary", "--serve")
    run(repo, "serve", "lr@20240603")
    run(repo, "label", "remove", "lr", "stable")
    assert "only --adopted" in run(repo, "prune", "lr", "--keep-last", "1").out
    gone = run(repo, "prune", "lr", "--keep-last", "1", "--adopted", "-q").out.split()
    assert "lr@20240501" in gone
    assert not (base / "20240501").exists()
    run(repo, "restore", "lr@20240501")
    assert (base / "20240501" / "saved_model.pb").is_file()
    assert "email_model: 2 > 1" in run(repo, "rollback", "email_model").out
    assert run(repo, "promote", runs / "4", *promote, "email_model").out == "3\n"
    assert sorted(one.name for one in (tmp_path / "models").iterdir()) == [
        "models.config",
        "push",
        "saved_models",
    ]
    assert run(repo, "verify").code == 0


def test_undo_takes_paths_out_of_the_marker(tmp_path: Path) -> None:
    """Each adoption its own: the paths of the one before stay, and format 2 with them."""
    text = write_config(tmp_path, *samples(tmp_path))
    repo = new_repository(tmp_path)
    path = repo.value.layout.format
    before, files = path.read_bytes(), facts(tmp_path)
    repo.adopt(["lr"])
    one = path.read_bytes()
    repo.adopt(["email_model"])
    repo.undo_adoption()
    assert path.read_bytes() == one
    assert repo.value.layout.paths == {"lr": "push/lr"}
    assert [row.versions for row in repo.list() if row.model == "lr"] == [(20240501, 20240601)]
    repo.undo_adoption()
    assert path.read_bytes() == before
    assert (tmp_path / "models" / "models.config").read_text() == text
    assert facts(tmp_path) == files
    assert repo.models() == ()
    assert repo.adopt((), all=True).models


@pytest.mark.parametrize(
    ("base_path", "said"),
    [
        ("{models}/push/7", "takes '7' for a version"),
        ("{models}/007/lr", "takes '007' for a version"),
        ("{models}/ranker/1/assets", "takes '1' for a version"),
        ("{models}/ranker/.staging/x", "begins with a dot"),
        ("{models}/ranker/.trash/x", "begins with a dot"),
        ("{models}/.hidden", "begins with a dot"),
        ("{models}/ranker/lr", "within the other"),
        ("{models}/ranker", "also that of ranker"),
        ("{models}/RANKER", "also ranker, that of ranker"),
        ("{models}", "{models}"),
        ("/elsewhere/push/lr", "/elsewhere/push/lr"),
        ("{models}/../lr", "{models}/../lr"),
    ],
)
def test_a_base_path_in_anothers_way_is_refused(base_path: str, said: str, tmp_path: Path) -> None:
    """Whether the other model is ours by then, or not yet."""
    models = tmp_path / "models"
    base_path, said = base_path.format(models=models), said.format(models=models)
    versions(models / "ranker", 1)
    if base_path.startswith(f"{models}/") and ".." not in base_path:
        versions(tmp_path / base_path.removeprefix(f"{tmp_path}/"), 20240501)
    at = entry(tmp_path, "lr", pins(20240501), base_path=base_path)
    repo = taken(tmp_path, entry(tmp_path, "ranker"), at)
    marker = repo.value.layout.format.read_bytes()
    assert said in why(repo, "lr")
    with pytest.raises(ConfigInvalid, match="cannot be adopted"):
        repo.adopt(["lr"])
    assert repo.value.layout.format.read_bytes() == marker


def test_a_folder_within_ours_is_refused(tmp_path: Path) -> None:
    """Also where models.config has no entry of that model any more."""
    repo = new_repository(tmp_path)
    runs = versions(tmp_path / "runs", 1)
    repo.promote(runs / "1", model="ranker", smoke=False)
    repo.unserve("ranker")
    versions(tmp_path / "models" / "ranker" / "lr", 1)
    write_config(tmp_path, entry(tmp_path, "lr", base_path=f"{tmp_path}/models/ranker/lr"))
    run(repo, "config", "write", "--take-edit")
    assert why(repo, "lr") == (
        "its folder ranker/lr is also ranker, that of ranker, or one is within the other"
    )
    with pytest.raises(ConfigInvalid):
        repo.adopt(["lr"])
    assert repo.value.layout.paths == {}


def test_no_model_gets_an_adopted_ones_folder(tmp_path: Path) -> None:
    repo = adopted(tmp_path)
    runs = versions(tmp_path / "runs", 1)
    repo.reload(poll=True)
    for name in ("push", "saved_models"):
        with pytest.raises(BadName, match=f"{name} would"):
            repo.promote(runs / "1", model=name, smoke=False)
    assert repo.promote(runs / "1", model="other", smoke=False).version == 1


def test_a_model_of_ours_gets_no_other_path(tmp_path: Path) -> None:
    """Its versions would be lost to it. The remedy that is named is not to adopt it."""
    repo = new_repository(tmp_path)
    runs = versions(tmp_path / "runs", 1, 2)
    repo.promote(runs / "1", model="lr", smoke=False)
    versions(tmp_path / "models" / "push" / "lr", 1)
    text = repo.value.layout.config.read_text()
    repo.value.layout.config.write_text(text.replace("models/lr", "models/push/lr"))
    run(repo, "config", "write", "--take-edit")
    assert f"keeps other versions of that name at {tmp_path}/models/lr" in why(repo, "lr")
    refused = run(repo, "rollback", "lr", code=36)
    assert "servingrepo adopt" not in refused.err
    assert "promote under another name" in refused.err
    assert repo.value.layout.paths == {}


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    models = tmp_path / "models"
    versions(tmp_path / "store" / "lr", 1)
    models.mkdir()
    (models / "push").symlink_to(tmp_path / "store")
    repo = taken(tmp_path, entry(tmp_path, "lr", base_path=f"{models}/push/lr"))
    assert f"{models}/push is a link, to {tmp_path}/store" in why(repo, "lr")
    assert repo.value.layout.paths == {}


def test_a_damaged_served_version_gives_no_path(tmp_path: Path) -> None:
    """Adopted is what can be; the marker names no model that stays unmanaged."""
    repo = taken(tmp_path, *samples(tmp_path))
    (tmp_path / "models" / "push" / "lr" / "20240601" / "saved_model.pb").write_bytes(b"nonsense")
    done = repo.adopt((), all=True)
    assert [one.model for one in done.models] == ["email_model"]
    assert repo.value.layout.paths == {"email_model": "saved_models"}
    assert [(row.model, row.ours, bool(row.elsewhere)) for row in repo.list()] == [
        ("email_model", True, False),
        ("lr", False, True),
    ]


def died(root: Path, step: str) -> None:
    done = command(
        *("--root", root, "adopt", "--all"), env={"SERVINGREPO_FAILPOINTS": f"{step}=kill"}
    )
    assert done.code == -9, done


@pytest.mark.parametrize("writer", ["hold", "promote"])
def test_the_next_writer_stops_after_a_dead_adoption(writer: str, tmp_path: Path) -> None:
    """It recovers, which takes the path back with which it was opened; called again it goes on."""
    versions(tmp_path / "models" / "a", 1)
    repo = taken(tmp_path, *samples(tmp_path), entry(tmp_path, "a", pins(1)))
    repo.adopt(["a"])
    marker = repo.value.layout.format.read_bytes()
    died(tmp_path, "c2.before-rename")
    assert repo.value.layout.paths
    runs = versions(tmp_path / "runs", 1, 2)
    arguments = {
        "hold": ("hold", "a"),
        "promote": ("promote", runs / "2", "--model", "a", "--no-smoke"),
    }[writer]
    stopped = run(repo, *arguments, code=41)
    assert "run this one again" in stopped.err
    assert repo.value.layout.format.read_bytes() == marker
    assert repo.models() == ("a",)
    assert not list((tmp_path / "models").rglob(".staging/*"))
    run(repo, *arguments)


@pytest.mark.parametrize("step", ["format.after-rename", "records.after-rename@2", "c2.done"])
def test_adopting_again_goes_on_after_a_death(step: str, tmp_path: Path) -> None:
    """Before the commit all begins anew; after it nothing is left to do."""
    repo = taken(tmp_path, *samples(tmp_path))
    died(tmp_path, step)
    done = run(repo, "adopt", "--all", "--json").json["result"]
    assert len(done["models"]) == (0 if step == "c2.done" else 2)
    assert repo.value.layout.paths == {"email_model": "saved_models", "lr": "push/lr"}
    assert [row.versions for row in repo.list()] == [(1, 2), (20240501, 20240601)]


def test_a_killed_undo_is_finished_with_its_paths(tmp_path: Path) -> None:
    """Killed where the marker is back already: history still says what the policy serves."""
    repo = taken(tmp_path, *samples(tmp_path))
    marker = repo.value.layout.format.read_bytes()
    repo.adopt((), all=True)
    done = command(
        *("--root", tmp_path, "adopt", "--undo"),
        env={"SERVINGREPO_FAILPOINTS": "format.done=kill"},
    )
    assert done.code == -9
    assert repo.value.layout.format.read_bytes() == marker
    run(repo, "recover")
    assert repo.value.layout.format.read_bytes() == marker
    undone = {one.model: one.after for one in repo.history() if "undo" in one.action}
    assert undone == {"email_model": (2,), "lr": (20240501, 20240601)}


def test_a_writer_that_began_before_the_adoption_stops(tmp_path: Path) -> None:
    """A promotion of another model, and a second adoption, that were reading meanwhile."""
    versions(tmp_path / "models" / "a", 1)
    repo = taken(tmp_path, *samples(tmp_path), entry(tmp_path, "a", pins(1)))
    repo.adopt(["a"])
    runs = versions(tmp_path / "runs", 1, 2)

    def meanwhile() -> None:
        servingrepo.open(tmp_path).adopt(["lr"])

    with pytest.raises(RepositoryChanged) as caught:
        repo.promote(runs / "2", model="a", smoke=False, run_read=meanwhile)
    assert caught.value.exit_code == 41
    began: list[int] = []

    def once(_: int) -> None:
        if not began:
            began.append(1)
            servingrepo.open(tmp_path).adopt(["email_model"])

    with pytest.raises(RepositoryChanged):
        repo.adopt(["email_model"], progress=once)
    assert [one.action for one in repo.history()].count("adopt") == 3
    assert repo.promote(runs / "2", model="a", smoke=False).version == 3
    repo.recover()
    assert not list((tmp_path / "models").rglob(".staging/*"))


def test_versions_that_came_later_are_adopted_there(tmp_path: Path) -> None:
    repo = adopted(tmp_path)
    marker = repo.value.layout.format.read_bytes()
    write_export(tmp_path / "models" / "push" / "lr" / "20240701")
    done = repo.adopt(["lr"])
    assert [(one.path, one.versions) for one in done.models] == [("push/lr", (20240701,))]
    repo.undo_adoption()
    assert repo.value.layout.format.read_bytes() == marker
    state = load_state(repo.value, "lr")
    assert state is not None
    assert repo.show("lr").versions[0].version == 20240601


@pytest.mark.tf
def test_paths_of_a_config_elsewhere_are_proven(tmp_path: Path) -> None:
    """Served where they lie for a smoke test; its entries come along, and the paths with them."""
    samples_of = samples(tmp_path)
    elsewhere = tmp_path / "etc"
    write_config(elsewhere, *samples_of)
    repo = new_repository(tmp_path)
    file = elsewhere / "models" / "models.config"
    done = repo.adopt((), all=True, config=file, smoke=True, engine="embedded")
    assert [(one.path, len(one.proofs)) for one in done.models] == [
        ("saved_models", 1),
        ("push/lr", 2),
    ]
    assert repo.value.layout.paths == {"email_model": "saved_models", "lr": "push/lr"}
    assert not list((tmp_path / "models").rglob(".staging/*"))
    repo.undo_adoption()
    assert repo.value.layout.paths == {}


def test_a_server_root_is_corrected_before_adopting(tmp_path: Path) -> None:
    """Where the entry is right and the server root was not; both move together from then on."""
    models = tmp_path / "models"
    versions(models / "push" / "lr", 1)
    write_config(tmp_path, entry(tmp_path, "lr", pins(1), base_path="/models/push/lr"))
    repo = new_repository(tmp_path)
    assert "config write --server-root" in why(repo, "lr")
    run(repo, "config", "write", "--take-edit")
    run(repo, "config", "write", "--server-root", "/models")
    assert repo.adopt(["lr"]).models[0].path == "push/lr"
    run(repo, "config", "write", "--server-root", "/srv")
    found = entry_of(read_config(repo.value).config, "lr")
    assert found is not None
    assert found.base_path == "/srv/push/lr"


def test_an_unmanaged_model_names_the_command(tmp_path: Path) -> None:
    """Where adopt takes it: below the server root, under a path that a model can have."""
    versions(tmp_path / "models" / "push" / "7", 1)
    repo = taken(
        tmp_path,
        *samples(tmp_path),
        entry(tmp_path, "odd", pins(1), base_path=f"{tmp_path}/models/push/7"),
        entry(tmp_path, "away", pins(1), base_path="gs://bucket/away"),
    )
    run(repo, "config", "write", "--take-edit")
    for model, named in (("lr", True), ("email_model", True), ("odd", False), ("away", False)):
        refused = run(repo, "rollback", model, code=36)
        assert (f"servingrepo adopt {model}" in refused.err) == named, model
        assert {one.model for one in repo.adopt((), all=True, dry_run=True).models} == {
            "lr",
            "email_model",
        }
    assert "servingrepo adopt --all" in run(repo, "status").out
    assert "servingrepo adopt away" in (shown := run(repo, "show", "away").out)
    assert "or says why it cannot" in shown
