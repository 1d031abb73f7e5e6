"""Where the code makes things durable, locks, or asks the kernel to refuse: found in the sources, not by hand."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "servingrepo"

CALLS = frozenset(
    {
        *("fsync", "fdatasync", "sync_directory", "sync_file", "make_durable"),
        *("flock", "lockf", "try_flock", "is_held", "was_left", "locked", "writing"),
        *("hold_lock", "alone_on_server", "refuse_moved"),
        *("renameat2", "rename_without_replacing"),
    }
)
"""Calls whose removal must be noticed."""

FLAGS = frozenset(
    {
        *("O_EXCL", "O_NOFOLLOW", "LOCK_EX", "LOCK_SH", "LOCK_NB"),
        *("_RENAME_NOREPLACE", "_RESOLVE_NO_SYMLINKS"),
    }
)
"""Flags whose removal must be noticed."""


@dataclass(frozen=True)
class Site:
    """One such place: `what` is the call or the flag, `nth` tells those in one function apart, from 1."""

    file: str
    function: str
    what: str
    nth: int

    def __str__(self) -> str:
        return f"{self.file}: {self.what} {self.nth} in {self.function}"


def sites(package: Path = PACKAGE) -> dict[Site, ast.expr]:
    """Return every place with the expression there."""
    found: dict[Site, ast.expr] = {}
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text())
        file = path.relative_to(package).as_posix()
        for place in ast.walk(tree):
            if not isinstance(place, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            name = "the module" if isinstance(place, ast.Module) else place.name
            counts: dict[str, int] = {}
            for node in _in_order(place):
                what = _what(node)
                if what:
                    counts[what] = counts.get(what, 0) + 1
                    found[Site(file, name, what, counts[what])] = node
    return found


def _in_order(function: ast.AST) -> list[ast.expr]:
    """Return the expressions of a function, or of a module, in their order; functions inside it have their own."""
    found: list[ast.expr] = []

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.expr):
                found.append(child)
            walk(child)

    walk(function)
    return sorted(found, key=lambda one: (one.lineno, one.col_offset))


def _what(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        name = _name(node.func)
        return name if name in CALLS else ""
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        name = _name(node)
        return name if name in FLAGS else ""
    return ""


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def mutated(source: str, node: ast.expr, replacement: str) -> str:
    """Return a source with one expression replaced."""
    lines = source.splitlines(keepends=True)
    start = sum(len(line) for line in lines[: node.lineno - 1])
    end = sum(len(line) for line in lines[: (node.end_lineno or node.lineno) - 1])
    first = lines[node.lineno - 1].encode()[: node.col_offset].decode()
    last = lines[(node.end_lineno or node.lineno) - 1].encode()[: node.end_col_offset].decode()
    return source[: start + len(first)] + replacement + source[end + len(last) :]
