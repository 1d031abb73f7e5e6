"""`init` on a tree that has models, and with a models directory that is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import servingrepo
from servingrepo.testing.exports import write_export
from tests.support import Outcome, command, live_server, run_with, without_root

if TYPE_CHECKING:
    from pathlib import Path


def tree(models: Path, **folders: tuple[int, ...]) -> Path:
    """Write exports as version folders: the name of a folder has `__` for a slash."""
    for name, versions in folders.items():
        for version in versions:
            write_export(models / name.replace("__", "/") / str(version))
    return models


def config(models: Path, **base_paths: str) -> None:
    """Write a models.config as people do."""
    entries = " ".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
        for name, path in base_paths.items()
    )
    models.mkdir(parents=True, exist_ok=True)
    (models / "models.config").write_text(f"model_config_list {{ {entries} }}\n")


def init(root: Path, *arguments: str | Path, code: int = 0) -> Outcome:
    done = command("--root", root, "init", *arguments)
    assert done.code == code, done
    return done


# what is there ---------------------------------------------------------------------------------------


def test_init_says_what_it_found_and_what_to_type(tmp_path: Path) -> None:
    models = tree(tmp_path / "models", ranker=(1, 2), push__lr=(20201016,))
    config(models, lr="/models/push/lr", gone="/elsewhere/gone")
    before = (models / "models.config").read_bytes()
    done = init(tmp_path)
    for line in (
        "found          ranker: versions 1, 2, no entry",
        "found          lr: versions 20201016, base path /models/push/lr, policy default",
        "found          gone: no versions here, base path /elsewhere/gone, policy default",
        "next           servingrepo adopt --all",
        "servingrepo doctor",
    ):
        assert line in done.out, done.out
    assert (models / "models.config").read_bytes() == before
    found = init(tmp_path, "--json").json["result"]["found"]
    assert [(one["model"], one["versions"], one["base_path"]) for one in found] == [
        ("gone", [], "/elsewhere/gone"),
        ("lr", [20201016], "/models/push/lr"),
        ("ranker", [1, 2], ""),
    ]
    assert found[1]["folder"] == str(models / "push" / "lr")


def test_init_of_nothing_finds_nothing(tmp_path: Path) -> None:
    done = init(tmp_path / "new")
    assert "found" not in done.out
    assert done.out.splitlines()[-1] == "  next           servingrepo promote RUN --model NAME"


def test_init_of_many_models_lists_some(tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / "models" / f"m{number:02}" / "1").mkdir(parents=True)
    done = init(tmp_path)
    assert done.out.count("found          m") == 20
    assert "and 5 more models" in done.out
    assert len(init(tmp_path, "--json").json["result"]["found"]) == 25


@pytest.mark.parametrize("taken", [False, True])
def test_commands_on_unmanaged_models_name_adopt(tmp_path: Path, taken: bool) -> None:
    """Whether or not somebody has taken over the config before."""
    models = tree(tmp_path / "models", ranker=(1, 2))
    config(models, ranker="/models/ranker")
    init(tmp_path)
    root = ("--root", tmp_path)
    if taken:
        assert command(*root, "config", "write", "--take-edit").code == 0
    for arguments in (
        ("rollback", "ranker"),
        ("serve", "ranker@1"),
        ("label", "set", "ranker@1", "stable"),
        ("verify", "ranker"),
        ("list",),
        ("show", "ranker"),
        ("status",),
    ):
        done = command(*root, *arguments)
        assert "servingrepo adopt" in done.out + done.err, (arguments, done)
        assert "promote one" not in done.err


# the server root -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_paths", "server_root"),
    [
        ({"lr": "/srv/tf/push/lr", "ranker": "/srv/tf/ranker"}, "/srv/tf"),
        ({"lr": "/srv/tf/push/lr/"}, "/srv/tf"),
        ({"lr": "/models/push/lr", "x": "gs://b/x", "y": "relative/y"}, "/models"),
        ({"ranker": "/ranker"}, ""),
        ({"lr": "/a/push/lr", "ranker": "/b/ranker"}, "/models"),
        ({"x": "/srv/tf/x"}, "/models"),
    ],
    ids=["both", "nested", "others", "root", "two", "none"],
)
def test_the_server_root_is_guessed_from_base_paths(
    base_paths: dict[str, str], server_root: str, tmp_path: Path
) -> None:
    models = tree(tmp_path / "models", ranker=(1,), push__lr=(2,))
    config(models, **base_paths)
    done = init(tmp_path, "--json").json["result"]
    assert done["server_root"] == server_root
    assert done["server_root_guessed"] == (server_root != "/models")
    assert servingrepo.open(tmp_path).value.server_root == server_root


def test_a_guessed_server_root_is_said(tmp_path: Path) -> None:
    config(tree(tmp_path / "models", ranker=(1,)), ranker="/srv/tf/ranker")
    done = init(tmp_path)
    assert "as /srv/tf\n" in done.out
    assert "guessed from the base paths" in done.out
    assert "(guessed" not in init(tmp_path).out, "it is a repository already"


@pytest.mark.parametrize("given", ["/models", "/other"])
def test_nothing_is_guessed_against_what_was_given(given: str, tmp_path: Path) -> None:
    config(tree(tmp_path / "models", ranker=(1,)), ranker="/srv/tf/ranker")
    done = init(tmp_path, "--server-root", given, "--json").json["result"]
    assert (done["server_root"], done["server_root_guessed"]) == (given, False)


def test_a_config_that_nobody_can_read_guesses_nothing(tmp_path: Path) -> None:
    models = tree(tmp_path / "models", ranker=(1,))
    (models / "models.config").write_text("nonsense {")
    assert init(tmp_path, "--json").json["result"]["server_root"] == "/models"


# the models directory --------------------------------------------------------------------------------


@pytest.mark.tf
def test_every_command_works_with_models_elsewhere(tmp_path: Path) -> None:
    shelf = tmp_path / "data" / "shelf"
    shelf.mkdir(parents=True)
    root = tmp_path / "serving"
    made = init(root, "--models", shelf, "--server-root", shelf, "--json").json["result"]
    assert (made["models"], made["config"]) == (str(shelf), str(shelf / "models.config"))
    assert not (root / "models").exists()
    for number in (1.0, 2.0, 3.0):
        run_with(tmp_path / f"run{number:.0f}", offset=number)

    def run(*arguments: str | Path) -> Outcome:
        done = command("--root", root, *arguments)
        assert done.code == 0, (arguments, done)
        return done

    run("promote", tmp_path / "run1", "--model", "m", "--engine", "embedded")
    with live_server(servingrepo.open(root), log=tmp_path / "log") as endpoint:
        at = ("--endpoint", str(endpoint))
        run("promote", tmp_path / "run2", "--model", "m", "--no-smoke", *at)
        run("promote", tmp_path / "run3", "--model", "m", "--no-smoke", *at)
        run("label", "set", "m@2", "stable", *at)
        run("rollback", "m", *at)
        run("label", "remove", "m", "stable", *at)
        run("serve", "m@1", *at)
        (row,) = run("status", *at, "--json").json["result"]["models"]
        assert (row["pinned"], row["drift"]) == ([1], [])
    run("verify", "m")
    run("serve", "m@2")
    run("mark-bad", "m@3", "--clear")
    run("serve", "m@3")
    run("prune", "m", "--keep-last", "1")
    assert not (shelf / "m" / "1").exists()
    run("restore", "m@1")
    for arguments in (("list",), ("show", "m"), ("diff", "m@1", "m@3"), ("config", "check")):
        run(*arguments)
    examined = run("doctor", root, "--json").json["result"]
    assert (examined["path"], examined["managed"], examined["models"]) == (str(shelf), True, 1)
    assert {one.name for one in shelf.iterdir()} == {"models.config", "m"}


def test_models_in_their_usual_place_are_format_1(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    init(tmp_path, "--models", tmp_path / "x" / ".." / "models")
    assert '"schema": 1' in (tmp_path / ".servingrepo" / "format.json").read_text()


def test_a_directory_that_cannot_have_models_is_refused(tmp_path: Path) -> None:
    """With the reason, and before anything was made."""
    taken = tmp_path / "taken"
    servingrepo.init(taken)
    (taken / "models" / "inner").mkdir()
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    servingrepo.init(tmp_path / "other", models=shelf)
    (tmp_path / "link").symlink_to(shelf)
    (tmp_path / "file").write_text("")
    root = tmp_path / "new"
    reasons = {
        taken / "models": "lies in the models directory of",
        taken / "models" / "inner": "lies in the models directory of",
        taken / ".servingrepo": "is, or lies in, the .servingrepo",
        taken / ".servingrepo" / "journal": "is, or lies in, the .servingrepo",
        taken: "would lie in it",
        tmp_path: "would lie in it",
        root: "is no directory",
        shelf: "for another repository",
        tmp_path / "link": "is a link",
        tmp_path / "file": "is no directory",
        tmp_path / "gone": "is no directory",
    }
    for models, reason in reasons.items():
        done = command("--root", root, "init", "--models", models)
        assert done.code == 2, (models, done)
        assert reason in done.err or "does not exist" in done.err or "is a file" in done.err, done
        assert not root.exists()


def test_a_directory_around_its_repository_is_refused(tmp_path: Path) -> None:
    done = init(tmp_path / "data" / "repo", "--models", tmp_path, code=2)
    assert "would lie in it" in done.err


def test_a_models_directory_that_cannot_be_written_is_refused() -> None:
    with without_root() as folder:
        (folder / "shelf").mkdir(mode=0o555)
        with pytest.raises(servingrepo.errors.NoPermission, match="cannot write to the models"):
            servingrepo.init(folder / "repo", models=folder / "shelf")
        assert not (folder / "repo").exists()


def test_a_repository_keeps_its_models_directory(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    root = tmp_path / "repo"
    init(root)
    done = init(root, "--models", tmp_path / "shelf")
    assert f"the models directory was not changed: it is {root / 'models'}" in done.err


def test_an_init_with_models_elsewhere_may_die_anywhere(tmp_path: Path) -> None:
    """Called again it ends where it would have ended: what it wrote there is not another repository's."""
    steps = tmp_path / "steps"
    (tmp_path / "first").mkdir()
    env = {"SERVINGREPO_FAILPOINTS": f"record={steps}"}
    whole = command("--root", tmp_path / "a", "init", "--models", tmp_path / "first", env=env)
    assert whole.code == 0
    reached = dict.fromkeys(steps.read_text().split())
    assert len(reached) > 10
    for number, step in enumerate(list(reached)[::3]):
        shelf, root = tmp_path / f"shelf{number}", tmp_path / f"repo{number}"
        shelf.mkdir()
        died = command(
            *("--root", root, "init", "--models", shelf),
            env={"SERVINGREPO_FAILPOINTS": f"{step}=kill"},
        )
        assert died.code == -9
        init(root, "--models", shelf)
        assert servingrepo.open(root).value.layout.models == shelf
        assert [one.name for one in shelf.iterdir()] == ["models.config"]


def test_the_init_that_doctor_names_can_be_typed(tmp_path: Path) -> None:
    """Also for a models directory of another name, which cannot have the records in it."""
    for name in ("models", "tf"):
        place = tree(tmp_path / name / name, ranker=(1,))
        said = command("doctor", place, "--json").json["result"]["next"]
        typed = said.split(", then ")[0].split()
        assert command(*typed[1:]).code == 0, said
        assert command("doctor", place.parent, "--json").code == 0
