"""What git runs before a commit is what CI runs, and subjects are short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
SUBJECT = PROJECT / "tools" / "subject.py"


def git(*words: str) -> list[str]:
    return subprocess.run(
        ["git", *words], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_hooks_are_the_linters_of_make_lint() -> None:
    linters = re.search(r"^LINTERS := (.+)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert linters is not None
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())
    (local,) = config["repos"]
    entries = {hook["entry"] for hook in local["hooks"]}
    assert entries == {
        *(f"make --silent {name}" for name in linters[1].split()),
        "tools/subject.py",
    }


def test_hooks_download_nothing() -> None:
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())
    assert [one["repo"] for one in config["repos"]] == ["local"]
    assert {hook["language"] for one in config["repos"] for hook in one["hooks"]} == {"system"}


@pytest.mark.parametrize(("length", "code"), [(72, 0), (73, 1)])
def test_subject_hook_refuses_long_subjects(tmp_path: Path, length: int, code: int) -> None:
    message = tmp_path / "message"
    message.write_text(
        "é" * length + "\n\n" + "A body may have longer lines. " * 9, encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, str(SUBJECT), str(message)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert (str(length) in done.stderr) == bool(code)


def test_subjects_since_the_hook_are_short() -> None:
    added = git("log", "--diff-filter=A", "--format=%H", "--", str(SUBJECT.relative_to(PROJECT)))
    subjects = git("log", "--format=%s", f"{added[-1]}..HEAD") if added else []
    assert [one for one in subjects if len(one) > 72] == []
