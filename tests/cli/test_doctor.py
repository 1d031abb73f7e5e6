"""The doctor command: what it prints, its JSON and its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import servingrepo
from servingrepo.cli.doctor import MOST_OF_A_RULE
from tests.cli import inside
from tests.support import command
from tests.verbs.doctoring import compose, configure, entry, export, models

if TYPE_CHECKING:
    from pathlib import Path


def test_a_sane_tree_says_how_to_adopt_it(tmp_path: Path) -> None:
    models(tmp_path)
    done = inside.command("doctor", tmp_path, "--compose", compose(tmp_path))
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"examined {tmp_path}/models: 1 model, 2 versions"
    assert "not checked: what servers have loaded (--endpoint HOST:PORT)" in lines
    assert lines[-2] == "no findings in what was looked at"
    assert lines[-1].startswith(f"next: servingrepo --root {tmp_path} init, then ")
    assert "adopt --all" in lines[-1]


def test_the_worst_comes_first_and_gives_the_code(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    (shelf / "half" / "3").mkdir()
    configure(shelf, entry("half"), entry("nowhere"))
    done = inside.command("doctor", tmp_path)
    assert done.code == 36
    heads = [
        line.split(":")[1].strip()
        for line in done.out.splitlines()
        if line.startswith(("error:", "warning:"))
    ]
    assert heads == ["base-path-missing", "cannot-load", "serves-at-once", "serves-at-once"]
    assert done.err.startswith(
        f"error: {shelf}: 2 errors, 2 warnings; the worst is base-path-missing"
    )


def test_warnings_and_notes_end_well(tmp_path: Path) -> None:
    configure(models(tmp_path), entry("half"))
    done = inside.command("doctor", tmp_path)
    assert done.code == 0
    assert "\n  fix   write model_version_policy { specific { versions: 2 } }" in done.out


def test_json_has_all_findings_either_way(tmp_path: Path) -> None:
    shelf = models(tmp_path)
    configure(shelf, entry("half"))
    done = inside.command("doctor", tmp_path, "--json")
    assert done.code == 0
    (one,) = done.json["result"]["findings"]
    assert set(one) == {
        *("slug", "severity", "model", "path", "what", "consequence", "fix", "defect", "exit_code"),
    }
    assert (one["slug"], one["severity"], one["exit_code"]) == ("serves-at-once", "warning", 0)
    assert done.json["result"]["not_checked"]
    configure(shelf, entry("half", more='model_platform: "other"'))
    done = inside.command("doctor", tmp_path, "--json")
    assert done.code == 36
    assert done.err == ""
    error = done.json["error"]
    assert error["slug"] == "config-invalid"
    slugs = [one["slug"] for one in error["details"]["findings"]]
    assert slugs == ["platform-unsupported", "serves-at-once"]


def test_many_findings_of_a_rule_are_counted(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(12)]
    for name in names:
        export(tmp_path / "models" / name / "1")
    configure(tmp_path / "models", *map(entry, names))
    brief, full = inside.command("doctor", tmp_path), inside.command("doctor", tmp_path, "-v")
    assert brief.out.count("warning: serves-at-once") == MOST_OF_A_RULE
    assert f"and {12 - MOST_OF_A_RULE} more of serves-at-once: -v shows them" in brief.out
    assert full.out.count("warning: serves-at-once") == 12


def test_compose_alone_says_where_the_tree_is(tmp_path: Path) -> None:
    models(tmp_path / "deploy")
    (tmp_path / "here").mkdir()
    file = compose(tmp_path / "deploy")
    done = command("doctor", "--compose", file, cwd=tmp_path / "here")
    assert done.out.startswith(f"examined {tmp_path}/deploy/models: ")
    named = command("--root", tmp_path / "here", "doctor", "--compose", file)
    assert named.out.startswith(f"examined {tmp_path}/here: ")


def test_variables_of_the_environment_reach_compose(tmp_path: Path) -> None:
    models(tmp_path)
    file = compose(tmp_path, more="    user: $WHO\n")
    assert "user:" in command("doctor", tmp_path, "--compose", file).out
    assert "user:" not in command("doctor", tmp_path, "--compose", file, env={"WHO": "0:0"}).out


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    inside.refused(inside.command("doctor", tmp_path / "nowhere"), 50, "nowhere")
    file = configure(tmp_path, entry("half"))
    inside.refused(inside.command("doctor", file), 2, "--config")


def test_python_has_the_same(tmp_path: Path) -> None:
    configure(models(tmp_path), entry("half"))
    found = servingrepo.doctor(tmp_path, deep=True)
    assert [one.slug for one in found.findings] == ["serves-at-once"]
