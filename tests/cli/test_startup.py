from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import run_with

if TYPE_CHECKING:
    from pathlib import Path

# The generated message modules below tensorflow.core are imported without the package itself: servingrepo.protos.
HEAVY = ("tensorflow.python", "tensorflow", "grpc", "docker", "numpy", "keras", "rich")

CHILD = """
import json, os, sys
from servingrepo.cli.main import run
told = os.dup(1)
os.dup2(2, 1)
code = run(sys.argv[1:])
with os.fdopen(told, "w") as answer:
    json.dump([code, sorted(sys.modules)], answer)
"""


def loaded_by(*arguments: str | Path, cwd: Path) -> set[str]:
    """Run a command to its good end in a fresh interpreter; return the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    code, names = json.loads(done.stdout)
    assert code == 0, done.stderr
    return set(names)


def test_the_check_sees_what_is_imported(root: Path, tmp_path: Path) -> None:
    found = loaded_by("--root", root, "status", cwd=tmp_path)
    assert "click" in found


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["promote", "--help"],
        ["--version"],
        ["list"],
        ["show", "ranker"],
        ["show", "ranker@1"],
        ["history"],
        ["rollback", "ranker"],
        ["rollback", "ranker", "--dry-run"],
        ["serve", "ranker@1"],
        ["mark-bad", "ranker@1"],
        ["prune", "--keep-last", "1"],
        ["prune", "--empty-trash"],
        ["status"],
        ["verify"],
        ["config", "check"],
        ["recover"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_a_command_that_needs_no_server_imports_nothing_heavy(
    arguments: list[str], root: Path, tmp_path: Path
) -> None:
    found = loaded_by("--root", root, *arguments, cwd=tmp_path)
    assert not found & set(HEAVY)


def test_promote_and_scan_import_no_tensorflow_docker_or_keras(root: Path, tmp_path: Path) -> None:
    """Nor grpc without a smoke test: it takes longer to import than all else of such a promotion."""
    run = run_with(tmp_path / "new", offset=5.0)
    for arguments in (["scan", str(run)], ["promote", str(run), "--model", "ranker", "--no-smoke"]):
        found = loaded_by("--root", root, *arguments, cwd=tmp_path)
        assert not found & {*HEAVY, "http.client"}


def test_help_imports_no_protobuf_either(tmp_path: Path) -> None:
    assert "google.protobuf" not in loaded_by("--help", cwd=tmp_path)
