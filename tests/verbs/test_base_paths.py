"""A model's base path is where its live versions are: no command of ours moves it away from them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.errors import ConfigInvalid
from servingrepo.modelconfig import entry, models
from servingrepo.repository.config import read_config
from servingrepo.testing.exports import write_export
from tests.support import Outcome, ask, command, live_server, run_with

if TYPE_CHECKING:
    from pathlib import Path

    from servingrepo.api import OpenRepository
    from servingrepo.servers.states import Endpoint

OLD, NEW = 20201016, 20210118
PINS = f"model_version_policy {{ specific {{ versions: {OLD} versions: {NEW} }} }}"
LABELS = f'version_labels {{ key: "stable" value: {OLD} }} version_labels {{ key: "canary" value: {NEW} }}'


def tree(
    tmp_path: Path, *, base_path: str = "", policy: str = PINS, labels: str = LABELS
) -> OpenRepository:
    """Return a repository over a tree that others made: models/push/lr, which they serve as lr."""
    root = tmp_path / "serving"
    shelf = root / "models"
    for version, offset in ((OLD, 2.0), (NEW, 3.0)):
        write_export(shelf / "push" / "lr" / str(version), slope=0.5, offset=offset)
    (shelf / "models.config").write_text(
        f'model_config_list {{ config {{ name: "lr" base_path: "{base_path or shelf / "push" / "lr"}" '
        f'model_platform: "tensorflow" {policy} {labels} }} }}\n'
    )
    repo, _ = servingrepo.init(root, server_root=str(shelf))
    taken = run(repo, "config", "write", "--take-edit")
    assert taken.code == 0, taken.err
    return repo


def run(repo: OpenRepository, *arguments: str | Path) -> Outcome:
    return command("--root", repo.root, *arguments)


def state_of(repo: OpenRepository) -> dict[str, bytes]:
    """Return every file of ours and models.config, to see that nothing was changed."""
    files = [path for path in repo.value.layout.own.rglob("*") if path.is_file()]
    return {
        str(path): path.read_bytes()
        for path in (*files, repo.value.layout.config)
        if path.name not in {"lock", "spare"}
    }


def answers(endpoint: Endpoint, *, label: str | None = None) -> int:
    return ask(endpoint, model="lr", label=label)[0]


VERBS = {
    "promote": ("promote", "{run}", "--model", "lr", "--no-smoke"),
    "promote --no-serve": ("promote", "{run}", "--model", "lr", "--no-smoke", "--no-serve"),
    "promote --dry-run": ("promote", "{run}", "--model", "lr", "--no-smoke", "--dry-run"),
    "serve": ("serve", f"lr@{OLD}"),
    "serve --dry-run": ("serve", f"lr@{OLD}", "--dry-run"),
    "unserve": ("unserve", "lr"),
    "label set": ("label", "set", f"lr@{OLD}", "canary"),
    "label remove": ("label", "remove", "lr", "canary"),
    "rollback": ("rollback", "lr"),
    "rollback --to": ("rollback", "lr", "--to", str(OLD)),
    "prune": ("prune", "lr", "--keep-last", "1"),
    "prune --dry-run": ("prune", "--keep-last", "1", "lr", "--dry-run"),
}


@pytest.mark.tf
def test_clients_of_a_model_elsewhere_are_left_alone(tmp_path: Path) -> None:
    repo = tree(tmp_path)
    run_with(tmp_path / "run", offset=4.0)
    before = state_of(repo)
    with live_server(repo, log=tmp_path / "log") as endpoint:
        for name, arguments in VERBS.items():
            at = ("--endpoint", str(endpoint))
            done = run(repo, *(one.format(run=tmp_path / "run") for one in arguments), *at)
            assert done.code == 36, (name, done)
            assert state_of(repo) == before, name
            assert (answers(endpoint), answers(endpoint, label="stable")) == (NEW, OLD), name
        reload = run(repo, "reload", "--endpoint", str(endpoint))
        assert reload.code == 0, reload.err
        assert (answers(endpoint), answers(endpoint, label="canary")) == (NEW, NEW)
        status = run(repo, "status", "--endpoint", str(endpoint), "--json")
        assert status.code == 0, status.out
        assert "rollback" not in status.out
    assert not (repo.root / "models" / "lr").exists()


@pytest.mark.parametrize(
    ("base_path", "policy", "labels"),
    [
        ("", PINS, LABELS),
        ("gs://bucket/push/lr", PINS, LABELS),
        ("", "model_version_policy { latest { num_versions: 1 } }", ""),
        ("", "", ""),
        ("/models/lr", PINS, ""),
    ],
    ids=["pinned", "bucket", "latest", "default", "other root"],
)
def test_a_change_of_a_model_elsewhere_is_refused_with_both_paths(
    base_path: str, policy: str, labels: str, tmp_path: Path
) -> None:
    repo = tree(tmp_path, base_path=base_path, policy=policy, labels=labels)
    run_with(tmp_path / "run", offset=4.0)
    before = state_of(repo)
    for verb in ("promote", "promote --dry-run", "serve", "rollback", "prune"):
        done = run(repo, *(one.format(run=tmp_path / "run") for one in VERBS[verb]))
        assert done.code == 36, done
        assert (base_path or "models/push/lr") in done.err
        assert repo.value.base_path("lr") in done.err
        assert ("config write --take-edit" if base_path else "servingrepo adopt lr") in done.err
        assert state_of(repo) == before
    assert not (repo.root / "models" / "lr").exists(), "nothing was copied"


def test_the_remedy_puts_an_end_to_being_elsewhere(tmp_path: Path) -> None:
    repo = tree(tmp_path)
    layout = repo.value.layout
    shutil.copytree(layout.models / "push" / "lr", layout.model("lr"))
    layout.config.write_text(layout.config.read_text().replace("/push/lr", "/lr"))
    assert run(repo, "config", "write", "--take-edit").code == 0
    done = repo.promote(run_with(tmp_path / "run", offset=4.0), model="lr", smoke=False)
    assert (done.version, done.before, done.after) == (NEW + 1, (OLD, NEW), (OLD, NEW, NEW + 1))


def test_another_server_root_is_advised_where_it_fits_all(tmp_path: Path) -> None:
    repo = tree(tmp_path, base_path="/models/lr")
    (repo.root / "models" / "push" / "lr").rename(repo.root / "models" / "lr")
    refused = run(repo, "rollback", "lr")
    assert refused.code == 36
    assert "config write --server-root /models;" in refused.err
    assert run(repo, "config", "write", "--server-root", "/models").code == 0
    again = servingrepo.open(repo.root)
    done = again.promote(run_with(tmp_path / "run", offset=4.0), model="lr", smoke=False)
    assert done.before == (OLD, NEW)


def test_what_is_elsewhere_is_not_called_missing(tmp_path: Path) -> None:
    repo = tree(tmp_path)
    there = str(repo.root / "models" / "push" / "lr")
    for arguments in (("status",), ("status", "lr"), ("list",), ("show", "lr")):
        done = run(repo, *arguments)
        assert done.code == 0, (arguments, done)
        assert there in done.out, arguments
        assert "unmanaged" in done.out, arguments
        assert "missing" not in done.out + done.err
        assert "servingrepo adopt" in done.out + done.err, arguments
    (row,) = run(repo, "status", "--json").json["result"]["models"]
    assert (row["elsewhere"], row["ours"], row["pinned"]) == (there, False, [OLD, NEW])
    (listed,) = run(repo, "list", "--json").json["result"]
    assert (listed["elsewhere"], listed["ours"]) == (there, False)


@pytest.fixture
def both(tmp_path: Path) -> OpenRepository:
    """A repository with a model of ours that somebody serves from elsewhere, and one that is where we keep it."""
    repo = tree(tmp_path)
    for number in (1.0, 2.0):
        for name in ("m", "ours"):
            repo.promote(
                run_with(tmp_path / f"{name}{number}", offset=number), model=name, smoke=False
            )
    repo.label_set("m@1", "stable")
    text = repo.value.layout.config.read_text()
    text = text.replace(repo.value.base_path("ours"), "/elsewhere/ours")
    repo.value.layout.config.write_text(text.replace('models/m"', 'models//m/"'))
    assert run(repo, "config", "write", "--take-edit").code == 0
    return repo


EVERYTHING = [
    ("promote", "{run}", "--model", "m", "--no-smoke"),
    ("promote", "{run}", "--model", "m", "--no-smoke", "--serve"),
    ("promote", "{run}", "--model", "ours", "--no-smoke"),
    ("promote", "{run}", "--model", "new", "--no-smoke"),
    ("serve", "m@1"),
    ("label", "set", "m@1", "canary"),
    ("label", "remove", "m", "stable"),
    ("rollback", "m"),
    ("hold", "m"),
    ("hold", "ours"),
    ("release-hold", "ours"),
    ("mark-bad", "ours@1"),
    ("mark-bad", "ours@1", "--clear"),
    ("prune", "m", "--keep-last", "1"),
    ("prune", "ours", "--keep-last", "1"),
    ("prune", "--empty-trash"),
    ("restore", "m@2"),
    ("contract", "m", "--write"),
    ("verify", "--max-seconds", "5"),
    ("config", "write"),
    ("recover",),
]


def test_no_command_moves_a_base_path(both: OpenRepository, tmp_path: Path) -> None:
    run_with(tmp_path / "run", offset=9.0)
    before = {one.name: one.base_path for one in models(read_config(both.value).config)}
    assert before["ours"] == "/elsewhere/ours"
    codes = {}
    for arguments in EVERYTHING:
        done = run(both, *(one.format(run=tmp_path / "run") for one in arguments))
        codes[" ".join(arguments)] = done.code
        now = {one.name: one.base_path for one in models(read_config(both.value).config)}
        now.pop("new", None)
        assert now == before, arguments
    assert set(codes.values()) <= {0, 32, 36}, codes
    edited = both.value.layout.config
    for edit in ("--take-edit", "--discard-edit"):
        edited.write_text(edited.read_text() + "# by hand\n")
        assert run(both, "config", "write", edit).code == 0
        now = {one.name: one.base_path for one in models(read_config(both.value).config)}
        now.pop("new", None)
        assert now == before, edit


def test_a_new_server_root_moves_only_what_was_below_the_old_one(both: OpenRepository) -> None:
    assert run(both, "config", "write", "--server-root", "/srv").code == 0
    now = {one.name: one.base_path for one in models(read_config(both.value).config)}
    assert now == {
        "lr": str(both.root / "models" / "push" / "lr"),
        "m": "/srv/m",
        "ours": "/elsewhere/ours",
    }


def test_an_edit_that_moves_a_model_away_stops_a_promotion_that_runs(
    both: OpenRepository, tmp_path: Path
) -> None:
    def edit() -> None:
        path = both.value.layout.config
        path.write_text(path.read_text().replace("models//m/", "away/m"))
        assert run(both, "config", "write", "--take-edit").code == 0

    with pytest.raises(ConfigInvalid, match="m is unmanaged"):
        both.promote(run_with(tmp_path / "run", offset=9.0), model="m", smoke=False, run_read=edit)
    assert both.show("m").elsewhere.endswith("away/m")
    assert sorted(path.name for path in both.value.layout.model("m").iterdir()) == [
        ".staging",
        "1",
        "2",
    ]


def test_readers_take_nothing_of_ours_for_what_is_served_elsewhere(both: OpenRepository) -> None:
    for arguments in (("show", "ours@served"), ("verify", "ours@served")):
        done = run(both, *arguments)
        assert done.code == 32, done
        assert "/elsewhere/ours" in done.err
    assert run(both, "verify", "ours").code == 0
    shown = run(both, "show", "ours", "--json").json["result"]
    assert [row["served"] for row in shown["versions"]] == [False, False]
    lineage = json.loads(run(both, "show", "--lineage", "ours", "--json").out)["result"]
    assert [row["run"] for row in lineage] == [""]
    found = entry(read_config(both.value).config, "ours")
    assert found is not None
    assert found.versions == (2,)
