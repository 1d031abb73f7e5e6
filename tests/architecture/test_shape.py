"""No function is too long to read at once, and none takes more than its options as one value would say."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "servingrepo"
MOST_PARAMETERS = 10
MOST_LINES = 80


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (f"{path.relative_to(PACKAGE).as_posix()}: {node.name}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        name
        for name, node in functions()
        if (node.end_lineno or node.lineno) - node.lineno + 1 > MOST_LINES
    ]
    assert long == []


def test_no_function_takes_many_parameters() -> None:
    """click passes options one by one, and the Python API spells out keywords: these two rooms may."""
    wide = {
        name
        for name, node in functions()
        if not name.startswith(("cli/", "api.py"))
        and len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) > MOST_PARAMETERS
    }
    assert wide == set()
