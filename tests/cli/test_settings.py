from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import servingrepo
from tests.cli.inside import refused
from tests.support import command, new_repository, run_with

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three repositories that can be told apart by what `init` says of them."""
    found = []
    for name in ("flag", "environment", "file"):
        repo, _ = servingrepo.init(tmp_path / name)
        found.append(repo.root)
    return found[0], found[1], found[2]


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "servingrepo.toml"
    path.write_text(text)
    return path


def root_taken(*arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> Path:
    """Ask a command that says which repository it opened."""
    done = command("init", "-q", *arguments, cwd=cwd, env=env)
    assert done.code == 0, done.err
    return type(cwd)(done.out.strip())


def test_root_comes_from_the_option_then_the_environment_then_the_file(
    roots: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    flag, environment, file = roots
    cwd = write(tmp_path / "cwd", f"root = '{file}'\n").parent
    env = {"SERVINGREPO_ROOT": str(environment)}
    assert root_taken(cwd=cwd) == file
    assert root_taken(cwd=cwd, env=env) == environment
    assert root_taken("--root", flag, cwd=cwd, env=env) == flag
    before = command("--root", flag, "init", "-q", cwd=cwd, env=env)
    assert before.out.strip() == str(flag), "the option wins where it stands before the command too"
    assert command("--root", flag, "init", "-q", cwd=cwd).out.strip() == str(flag)


def test_a_relative_root_in_the_file_is_seen_from_the_file(
    roots: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    settings = write(tmp_path / "else" / "where", "root = '../../file'\n")
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    assert root_taken(cwd=settings.parent).samefile(roots[2])
    before = command("--settings", settings, "init", "-q", cwd=cwd)
    assert type(cwd)(before.out.strip()).samefile(roots[2])
    env = {"SERVINGREPO_SETTINGS": str(settings)}
    assert root_taken(cwd=cwd, env=env).samefile(roots[2])


def test_a_relative_root_of_the_option_is_seen_from_here(root: Path) -> None:
    assert "ranker" in command("--root", root.name, "list", cwd=root.parent).out


def test_the_file_in_the_root_is_read_wherever_root_stands(root: Path) -> None:
    write(root, "[history]\nlimit = 1\n")
    for arguments in (["--root", str(root), "history"], ["history", "--root", str(root)]):
        done = command(*arguments, "-q", cwd=root.parent)
        assert len(done.out.splitlines()) == 1, arguments


def test_the_file_here_wins_over_the_one_in_the_root(root: Path, tmp_path: Path) -> None:
    write(root, "[history]\nlimit = 1\n")
    cwd = write(tmp_path / "cwd", "[history]\nlimit = 2\n").parent
    for arguments in (["--root", str(root), "history"], ["history", "--root", str(root)]):
        assert len(command(*arguments, "-q", cwd=cwd).out.splitlines()) == 2


def test_an_option_of_a_command_comes_from_flag_then_environment_then_file(root: Path) -> None:
    write(root, "[history]\nlimit = 1\n")
    env = {"SERVINGREPO_HISTORY_LIMIT": "2"}
    servingrepo.open(root).hold("ranker")
    lines = [
        len(command("--root", root, "history", "-q", *more, env=used).out.splitlines())
        for more, used in (((), {}), ((), env), (("--limit", "3"), env))
    ]
    assert lines == [1, 2, 3]


def test_a_value_of_the_environment_is_used_by_its_command(root: Path, run: Path) -> None:
    env = {
        "SERVINGREPO_ROOT": str(root),
        "SERVINGREPO_PROMOTE_MODEL": "ranker",
        "SERVINGREPO_PROMOTE_VERSION": "9",
        "SERVINGREPO_PROMOTE_SMOKE": "0",
        "SERVINGREPO_PROMOTE_MESSAGE": "nightly",
        "SERVINGREPO_PROMOTE_SERVE": "no",
        "SERVINGREPO_QUIET": "1",
    }
    done = command("promote", run, env=env)
    assert (done.code, done.out) == (0, "9\n"), done.err
    record = servingrepo.open(root).show_version("ranker@9")
    assert record.message == "nightly"
    assert servingrepo.open(root).show("ranker").served == 2
    back = command("rollback", "ranker", env={**env, "SERVINGREPO_ROLLBACK_TO": "1"})
    assert back.out == "1\n"
    marked = command("mark-bad", "ranker@1", env={**env, "SERVINGREPO_MARK_BAD_DRY_RUN": "1"})
    assert marked.code == 0
    assert not servingrepo.open(root).show("ranker").versions[-1].bad


def test_endpoints_come_from_the_environment_several_at_once(root: Path) -> None:
    env = {"SERVINGREPO_ENDPOINT": "127.0.0.1:1 127.0.0.1:2", "SERVINGREPO_WAIT": "1"}
    done = command("--root", root, "status", env=env)
    assert done.code == 68
    assert "127.0.0.1:1" in done.out
    assert "127.0.0.1:2" in done.out
    only_here = {**env, "SERVINGREPO_STATUS_ENDPOINT": "127.0.0.1:3"}
    assert "127.0.0.1:1" not in command("--root", root, "status", env=only_here).out


def test_endpoints_come_from_the_file_as_a_list_or_one_text(root: Path) -> None:
    for text in ('endpoints = ["127.0.0.1:1"]', 'endpoints = "127.0.0.1:1"'):
        write(root, text)
        done = command("--root", root, "status")
        assert done.code == 68
        assert "127.0.0.1:1" in done.out


def test_how_long_a_change_may_take_does_not_make_status_wait(root: Path) -> None:
    write(root, 'endpoints = ["127.0.0.1:1"]\nwait = 50\n')
    done = command("--root", root, "status", env={"SERVINGREPO_WAIT": "50"}, timeout=20)
    assert done.code == 68


def test_everything_in_the_file_that_means_nothing_is_listed_at_once(root: Path) -> None:
    write(
        root,
        "nosuch = 1\nwait = 'soon'\n[history]\nlimits = 3\nlimit = 0\n[promot]\n[mark_bad]\n"
        "clear = 'perhaps'\n",
    )
    done = command("--root", root, "list")
    assert done.code == 10
    assert done.out == ""
    for said in ("nosuch", "wait", "history.limits", "history.limit:", "promot:", "mark_bad.clear"):
        assert said in done.err, said
    assert str(root / "servingrepo.toml") in done.err
    assert "hint: " in done.err


@pytest.mark.parametrize(
    "text", [b"root = \n", b"root = '\xff'\n", b"[promote\n", b"a = 1\na = 2\n"]
)
def test_a_file_that_is_not_toml_is_named(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "servingrepo.toml").write_bytes(text)
    done = command("list", cwd=tmp_path)
    assert done.code == 10
    assert "servingrepo.toml is not TOML" in done.err
    assert "hint: " in done.err


def test_a_settings_file_that_is_named_but_not_there_is_an_error(tmp_path: Path) -> None:
    done = command("--settings", tmp_path / "nosuch.toml", "list")
    assert done.code == 2
    assert "nosuch.toml" in done.err


@pytest.mark.parametrize(
    ("variable", "value", "arguments"),
    [
        ("SERVINGREPO_WAIT", "soon", ["serve", "ranker"]),
        ("SERVINGREPO_HISTORY_LIMIT", "0", ["history"]),
        ("SERVINGREPO_TIMEOUT", "0", ["smoke", "ranker"]),
        ("SERVINGREPO_LOCK_WAIT", "-1", ["recover"]),
        ("SERVINGREPO_PROMOTE_STRICT", "perhaps", ["promote", "x", "--model", "m"]),
    ],
)
def test_a_bad_value_of_the_environment_names_its_variable(
    variable: str, value: str, arguments: list[str], root: Path
) -> None:
    done = command("--root", root, *arguments, env={variable: value})
    assert done.code == 10
    assert f"environment variable {variable} " in done.err
    assert value in done.err


def test_the_sample_of_the_settings_is_usable(root: Path, tmp_path: Path) -> None:
    from pathlib import Path

    sample = (Path(__file__).resolve().parents[2] / "configs" / "servingrepo.toml").read_text()
    assert "# endpoints" in sample
    settings = write(tmp_path / "cwd", sample.replace("# endpoints", "endpoints"))
    done = command("--settings", settings, "--root", root, "list")
    assert done.code == 0, done.err


def test_a_models_table_shapes_the_engine_for_that_model_alone(tmp_path: Path) -> None:
    settings = tmp_path / "servingrepo.toml"
    settings.write_text('[models.ranker]\nengine = "binary:/bin/true"\n')
    repo = new_repository(tmp_path / "serving")
    repo.promote(run_with(tmp_path / "a", offset=1.0), model="ranker", smoke=False)
    repo.promote(run_with(tmp_path / "b", offset=2.0), model="other", smoke=False)
    at = ["--settings", str(settings), "--root", str(repo.root), "smoke"]
    assert "/bin/true" in command(*at, "ranker@1").err
    assert "/bin/false" in command(*at, "ranker@1", "--engine", "binary:/bin/false").err
    by_variable = command(*at, "ranker@1", env={"SERVINGREPO_ENGINE": "binary:/bin/false"})
    assert "/bin/false" in by_variable.err
    other = command(*at, "other@1", "--engine", "binary:/bin/cat")
    assert "/bin/cat" in other.err


def test_a_models_table_with_unknown_settings_is_refused_with_all_of_them(tmp_path: Path) -> None:
    settings = tmp_path / "servingrepo.toml"
    settings.write_text('[models]\nother = 3\n[models.ranker]\nimge = "x"\nwait = 3\n')
    done = command("--settings", settings, "--root", tmp_path, "list")
    assert done.code == 10
    for name in ("models.other", "models.ranker.imge", "models.ranker.wait"):
        assert name in done.err


EMBEDDED = ("--engine", "embedded")


@pytest.mark.parametrize(
    ("given", "env", "said"),
    [
        ((*EMBEDDED, "--image", "x"), {}, "--image means nothing to --engine embedded"),
        (
            (*EMBEDDED, "--pull", "--server-arg", "--a=1"),
            {},
            "--pull, --server-arg mean nothing to --engine embedded",
        ),
        (
            ("--engine", "binary:/bin/true", "--memory", "2g"),
            {},
            "--memory means nothing to --engine binary:/bin/true",
        ),
        (
            ("--engine", "remote:127.0.0.1:1", "--gpus", "all"),
            {},
            "--gpus means nothing to --engine remote:127.0.0.1:1",
        ),
        (
            EMBEDDED,
            {"SERVINGREPO_ENGINE_IMAGE": "x"},
            "SERVINGREPO_ENGINE_IMAGE means nothing to --engine embedded",
        ),
        (
            ("--image", "x"),
            {"SERVINGREPO_ENGINE": "embedded"},
            "--image means nothing to --engine embedded, which SERVINGREPO_ENGINE says",
        ),
        (
            ("--image", "x"),
            {"SERVINGREPO_SETTINGS": "embedded.toml"},
            "--image means nothing to --engine embedded, which the settings file says",
        ),
    ],
)
def test_an_option_that_the_chosen_engine_would_ignore_is_refused(
    given: tuple[str, ...], env: dict[str, str], said: str, root: Path, run: Path
) -> None:
    (root / "embedded.toml").write_text('engine = "embedded"\n')
    done = command("--root", root, "smoke", run, *given, env=env, cwd=root)
    refused(done, 2, f"error: {said}\n", "leave the option or the engine out")


def test_settings_of_engines_in_general_hold_for_the_chosen_one_as_far_as_they_go(
    root: Path, run: Path
) -> None:
    (root / "servingrepo.toml").write_text(
        'engine = "docker"\n[models.ranker]\nimage = "x"\nmemory = "2g"\n[smoke]\nimage = "y"\n'
    )
    promote: list[str | Path] = ["--root", root, "promote", run, "--model", "ranker", "--dry-run"]
    assert command(*promote, *EMBEDDED).code == 0
    refused(command(*promote, *EMBEDDED, "--gpus", "1"), 2, "--gpus means nothing")
    standing = {"SERVINGREPO_ENGINE": "embedded", "SERVINGREPO_ENGINE_IMAGE": "z"}
    assert command(*promote, env=standing).code == 0
    assert command(*promote, "--engine", "binary:/bin/true", "--server-arg", "--a").code == 0


def test_a_relative_run_counts_from_the_folder_of_runs(root: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "runs" / "new", offset=9.0)
    settings = write(tmp_path / "etc", "[scan]\nruns = '../runs'\n[promote]\nruns = '../runs'\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    scan = ("scan", "new", "-q")
    found = f"{run}/saved_model\n"
    by_file = command("--settings", settings, *scan, cwd=elsewhere)
    assert (tmp_path / by_file.out.strip()).samefile(run / "saved_model"), by_file
    env = {"SERVINGREPO_SCAN_RUNS": str(run.parent)}
    assert command(*scan, cwd=elsewhere, env=env).out == found
    assert command(*scan, "--runs", run.parent, cwd=elsewhere).out == found
    assert command("scan", run, "-q", "--runs", "/nowhere").out == found
    promote = ("promote", "new", "--model", "ranker", "--no-smoke", "-q", "--root", root)
    assert command("--settings", settings, *promote, cwd=elsewhere).out == "3\n"
    refused(command("export", "new", "--runs", run.parent), 20, run)
