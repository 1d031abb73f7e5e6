"""A short file is alone for a reason: it is a command or a verb, or several files need it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from servingrepo.cli.main import COMMANDS
from tests.architecture.test_rooms import PACKAGE, parsed, python_files

if TYPE_CHECKING:
    from pathlib import Path

SHORT = 40


def users() -> dict[str, set[Path]]:
    """Return the files that import a module of ours, by its name."""
    found: dict[str, set[Path]] = {}
    for path in python_files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom):
                for name in (node.module, *(f"{node.module}.{one.name}" for one in node.names)):
                    found.setdefault(str(name), set()).add(path)
            elif isinstance(node, ast.Import):
                for one in node.names:
                    found.setdefault(one.name, set()).add(path)
    return found


def test_short_files_have_several_users() -> None:
    commands = {
        f"cli/{name.replace('-', '_')}.py" for section in COMMANDS.values() for name in section
    }
    importers = users()
    alone = set()
    for path in python_files():
        file = path.relative_to(PACKAGE).as_posix()
        module = "servingrepo." + file.removesuffix(".py").replace("/", ".")
        if path.stem.startswith("__") or file in commands or file.startswith("verbs/"):
            continue
        if len(path.read_text().splitlines()) < SHORT and len(importers.get(module, ())) < 2:
            alone.add(file)
    assert alone == set(), "put it into the file that uses it"
