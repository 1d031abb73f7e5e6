"""docs/how-to/existing-models.md: each of its commands works, in this order, on a tree as the page describes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from servingrepo.testing.exports import write_export
from tests.support import command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "existing-models.md"


def steps() -> list[tuple[str, str]]:
    """Return the commands of the page, each with the output that it shows; empty if it shows none."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(part.split("\n", 1)[0], part.split("\n", 1)[1].strip()) for part in parts]


def test_the_commands_of_the_page_work(tmp_path: Path) -> None:
    for place in ("models/ranker/20240501", "models/ranker/20240601", "models/prices/1"):
        write_export(tmp_path / place, offset=float(len(place)), variables=True)
    write_export(tmp_path / "runs" / "new", offset=9.0)
    (tmp_path / "models" / "models.config").write_text(
        "model_config_list {"
        + "".join(
            f'config {{ name: "{name}" base_path: "{tmp_path}/models/{name}" model_platform: "tensorflow" }}\n'
            for name in ("ranker", "prices")
        )
        + "}"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = {}
    for line, shown in steps():
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert shown in done.stdout, line
        said[line] = done.stdout
    assert len(said) >= 9
    assert "by number" in said['servingrepo rollback ranker -m "scores are off"']
    assert (
        "ranker@20240602 published"
        in said["servingrepo promote runs/new --model ranker --no-smoke"]
    )
    assert command("--root", tmp_path, "adopt", "--undo").code == 38
