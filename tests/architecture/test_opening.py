"""A run's files are opened by storage/beneath.py and by nothing else: whatever else opens a path follows links."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "servingrepo"

OPENING = frozenset(
    {
        *("open", "fdopen", "openpty", "FileIO", "read_text", "read_bytes", "connect", "ZipFile"),
        *("File", "is_zipfile", "is_tarfile", "TarFile", "load_model", "run_path", "mmap"),
        *("scandir", "listdir", "walk", "fwalk", "iterdir", "glob", "iglob", "rglob"),
        *("stat", "lstat", "exists", "lexists", "is_file", "is_dir", "isfile", "isdir"),
        *("getsize", "getmtime", "copyfile", "copyfileobj", "copytree", "copy2"),
    }
)
"""Names of functions that take a path, or that go on from one."""

ALLOWED: dict[str, dict[str, str]] = {
    "runs/run.py": {"is_file": "the run itself, which the user names"},
    "runs/scan.py": {
        "stat": "the run itself, which the user names",
        "iterdir": "what lies beside a run that is not there",
        "is_dir": "the SavedModel that the user names, its links resolved and held against the run",
    },
    "runs/savedmodels.py": {
        "fwalk": "goes on from a directory that beneath.py opened, and follows no links",
        "stat": "of names in the directories of that walk, without following links",
    },
    "runs/mlflow.py": {
        "connect": "the copy in our scratch directory",
        "open": "the same",
    },
    "runs/mounts.py": {"read_text": "the kernel's table of mounts"},
    "savedmodel/reading.py": {
        "open": "the export's own ExportFiles.open, and read_bounded for what the user names",
        "listdir": "a descriptor that beneath.py gave",
    },
    "savedmodel/server_fit.py": {"read_bytes": "a file of this package"},
    "savedmodel/warmup.py": {"open": "ExportFiles.open"},
}
"""What is called all the same, by file, and why that is right."""

OTHERS = {
    "runs/archives.py": "the archive that the user names, and the directory that it is unpacked in",
    "runs/unpacking.py": "what an archive unpacks to, below our own directory, by descriptors and without links",
    "runs/export.py": "the model that the user names, and what is made of it",
    "runs/keras_child.py": "the model that export hands over",
    "runs/worktree.py": "git's own files",
}
"""Files that read no run's files for records, and what they open."""


def calls_that_open(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Call):
            # The module stat is no function: a name counts where it is called or handed on.
            found |= {one.id for one in (node.func, *node.args) if isinstance(one, ast.Name)}
    return found & OPENING


FILES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for room in ("runs", "savedmodel")
    for path in (PACKAGE / room).rglob("*.py")
)


@pytest.mark.parametrize("file", [one for one in FILES if one not in OTHERS])
def test_a_run_s_files_are_opened_in_one_way_only(file: str) -> None:
    found = calls_that_open(PACKAGE / file)
    allowed = ALLOWED.get(file, {})
    assert found - allowed.keys() == set(), "open it with servingrepo.storage.beneath"
    assert allowed.keys() - found == set(), "what is not called needs no exception"


def test_the_exceptions_name_files_that_there_are() -> None:
    assert {*ALLOWED, *OTHERS} - {*FILES} == set()
