"""What the documents say is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from servingrepo.errors import every_error
from servingrepo.modelconfig.paths import START_FLAGS

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()
DOCUMENTS = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    PROJECT / "CHANGELOG.md",
    PROJECT / "SECURITY.md",
    *sorted((PROJECT / "docs").rglob("*.md")),
]


def between(text: str, mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text, re.DOTALL)
    assert found is not None, f"there is no <!-- {mark} --> part"
    return found[1]


def tour() -> list[tuple[str, str]]:
    """Return the tour's commands and what README says they print."""
    body = between(README, "tour").removeprefix("```console\n").removesuffix("```\n")
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
    return [(part.split("\n", 1)[0], part.split("\n", 1)[1].strip()) for part in parts]


def masked(text: str, here: Path) -> str:
    """Take out what differs from one machine, minute and TensorFlow to the next."""
    text = text.replace(str(here), "/srv/serving")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"TensorFlow \d+\.\d+\.\d+", "TensorFlow X", text)
    text = re.sub(r"[\d.]+ (B|kB|MB) in", "SIZE in", text)
    text = re.sub(r"\S+@\S+(?=  (promote|rollback))", "WHO", text)
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


@pytest.mark.tf
@pytest.mark.timeout(180)
def test_the_tour_prints_what_the_readme_shows(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(PROJECT / "demo" / "train.py"), str(tmp_path)],
        check=True,
        capture_output=True,
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    steps = tour()
    assert len(steps) >= 6
    for line, expected in steps:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "SERVINGREPO_ENGINE": "embedded"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert masked(done.stdout, tmp_path) == masked(expected, tmp_path), line


def test_every_start_line_has_the_flags_that_servers_need() -> None:
    described = ("compose/include.yml", "compose/standin/Dockerfile")
    texts = {name: (PROJECT / name).read_text() for name in described}
    texts["the tour"] = between(README, "tour")
    texts["docker run"] = README.partition("$ docker run ")[2].partition("```")[0]
    for where, text in texts.items():
        assert "--model_config_file=" in text, where
        for flag in START_FLAGS:
            assert flag in text, f"{where} lacks {flag}"


def test_every_link_to_a_file_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_file_that_a_document_names_exists() -> None:
    pattern = re.compile(r"`((?:[a-z_]+/)+[\w-]+\.py)[`:]")
    places = (PROJECT, PROJECT / "servingrepo")
    named = {(one.name, name) for one in DOCUMENTS for name in pattern.findall(one.read_text())}
    assert len(named) > 50
    missing = [one for one in named if not any((place / one[1]).exists() for place in places)]
    assert missing == []


@pytest.mark.parametrize("document", ["reliability.md", "security.md"])
def test_every_test_that_a_guarantee_names_exists(document: str) -> None:
    text = (PROJECT / "docs" / document).read_text()
    named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", text)
    assert named
    for file, name in named:
        path = PROJECT / file
        assert path.exists(), file
        if name:
            assert f"def {name}(" in path.read_text(), f"{file}::{name}"


def test_every_promise_of_security_names_a_test() -> None:
    text = (PROJECT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| (?!promise|---)(.+?) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) > 5
    assert [promise for promise, held in rows if "`tests/" not in held] == []


def test_every_dependency_has_a_line_in_the_decisions() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    named = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    table = between((PROJECT / "docs" / "decisions.md").read_text(), "dependencies")
    rows = [line.split("|")[1] for line in table.splitlines()]
    for text in (one for one in named if isinstance(one, str)):
        found = re.match(r"[\w-]+", text)
        assert found is not None
        assert any(f"`{found[0]}`" in row for row in rows), found[0]


def test_every_error_says_what_it_means_in_the_table() -> None:
    table = between(README, "exit-codes")
    for kind in every_error():
        assert f"| {kind.exit_code} | `{kind.slug}` | {kind.summary} |" in table


def test_no_machine_path_is_written_down() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        path = PROJECT / name
        if path.suffix in {".py", ".md", ".toml", ".yml", ".json", ".config", ".sh"}:
            text = path.read_text()
            for machine in ("/wo" + "rk/", "/opt/" + "sr-venv"):
                assert machine not in text, f"{name} has {machine}"
