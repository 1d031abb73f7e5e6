"""docs/how-to/smoke-tests.md: each of its commands works, in this order, and prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from servingrepo.smoke.cases import read_case, read_document
from servingrepo.testing.exports import write_export
from tests.support import new_repository

DOCS = Path(__file__).resolve().parents[2] / "docs"


def steps(page: str) -> list[tuple[str, str]]:
    """Return the commands of a page with the output that it shows. A here-document belongs to its command."""
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    found = []
    for part in parts:
        here = re.match(r".*<< 'END'\n.*?^END\n", part, re.MULTILINE | re.DOTALL)
        line = here[0] if here is not None else part.split("\n", 1)[0]
        found.append((line, part[len(line) :].strip()))
    return found


@pytest.mark.tf
def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    repo = new_repository(tmp_path)
    (tmp_path / "configs").mkdir(exist_ok=True)
    first = write_export(tmp_path / "first")
    repo.promote(first, model="ranker", engine="embedded")
    write_export(tmp_path / "runs" / "better" / "export", payload_bytes=10)
    write_export(tmp_path / "runs" / "broken" / "export", offset=2.5)
    write_export(tmp_path / "runs" / "other" / "export", offset=2.5, payload_bytes=10)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    said = {}
    for line, shown in steps((DOCS / "how-to" / "smoke-tests.md").read_text()):
        if line.startswith("export "):
            environment |= dict(one.split("=") for one in line.split()[1:])
            continue
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        for each in shown.splitlines():
            assert each in done.stdout, line
        said[line] = done.stdout
    assert len(said) >= 12
    assert "ranker@2" in said["servingrepo promote runs/better --model ranker"]
    # The golden value and the condition were both judged.
    better = said["servingrepo smoke runs/better/"]
    assert "ranker.cases.json#1 (tall)" in better
    assert "scores stay in their range" in said["servingrepo smoke ranker"]


def test_the_document_of_the_reference_is_one() -> None:
    text = (DOCS / "cases.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    document = read_document(tomllib.loads(block), "page")
    assert document.budget is not None
    cases = [
        read_case(one, file="page", position=1, document=document, runs_code=True)
        for one in document.cases
    ]
    assert [one.problems for one in cases] == [(), (), ()]
