"""What happens next goes by classes and fields: outside `cli/` and `errors.py` no code reads an error's text.

An error's message is for people, its `details` are for scripts that read `--json`. Code that matches on either breaks
when somebody corrects a sentence.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.architecture.test_rooms import PACKAGE, parsed, python_files

if TYPE_CHECKING:
    from collections.abc import Iterator

READERS = ("cli/", "errors.py", "embedded/")
"""Who may: the command line shows errors; the embedded server is a program with messages of its own."""

EXCEPTIONS = {
    "runs/configuration.py::load_yaml: matches an error's text": "shows the first line of a library's",
    "runs/values.py::__str__: reads details": "a value with a field of that name, no error",
    "servers/engines/docker_daemon.py::is_silence: compares an error's text": "a library's only sign",
    "servers/security.py::_try_pair: compares an error's text": "a library's only sign",
}
"""Places that may, each with the reason: none reads an error of ours."""

TESTS_OF_TEXT = frozenset(
    {"startswith", "endswith", "removeprefix", "removesuffix", "replace", "find", "index", "count"}
    | {"split", "partition", "rpartition", "splitlines"}
)
PATTERNS = frozenset({"search", "match", "fullmatch", "findall", "finditer", "sub", "split"})


class Reader(ast.NodeVisitor):
    """Finds what a file does with the text and the details of errors, by function."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.function = "the module"
        self.caught: set[str] = set()
        self.called: set[int] = set()

    def note(self, what: str) -> None:
        self.found.append(f"{self.function}: {what}")

    def is_text(self, node: ast.AST | None) -> bool:
        """Tell whether an expression is the text of an error: its message, or str() of what was caught."""
        if isinstance(node, ast.Attribute):
            return node.attr == "message"
        if isinstance(node, ast.Subscript):
            return isinstance(node.value, ast.Attribute) and node.value.attr == "args"
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            return False
        named = any(isinstance(one, ast.Name) and one.id in self.caught for one in node.args)
        return node.func.id in {"str", "repr"} and named

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self.function
        self.function = node.name
        self.generic_visit(node)
        self.function = outer

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.caught |= {node.name} if node.name else set()
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr == "details" and id(node) not in self.called:
            self.note("reads details")
        if node.attr in {"message", "args"} and not isinstance(node.ctx, ast.Load):
            self.note("assigns an error's text")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if any(self.is_text(side) for side in (node.left, *node.comparators)):
            self.note("compares an error's text")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.called.add(id(node.func))  # `error.details()` of grpc
        if isinstance(node.func, ast.Attribute):
            name, given = node.func.attr, (*node.args, *(one.value for one in node.keywords))
            value = node.func.value
            kept = isinstance(value, ast.Attribute) and value.attr == "error"  # a text in a result
            of_text = name in TESTS_OF_TEXT and (kept or self.is_text(value))
            if of_text or (name in PATTERNS and any(map(self.is_text, given))):
                self.note("matches an error's text")
        self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> None:
        if self.is_text(node.subject):
            self.note("matches an error's text")
        self.generic_visit(node)


def read_by(source: ast.Module) -> list[str]:
    reader = Reader()
    reader.visit(source)
    return reader.found


def everywhere() -> Iterator[str]:
    for path in python_files():
        file = path.relative_to(PACKAGE).as_posix()
        if not file.startswith(READERS):
            yield from (f"{file}::{what}" for what in read_by(parsed(path)))


def test_no_decision_goes_by_an_errors_text() -> None:
    assert sorted(set(everywhere()) - EXCEPTIONS.keys()) == []


def test_every_named_exception_is_still_there() -> None:
    assert sorted(EXCEPTIONS.keys() - set(everywhere())) == []


def test_each_way_to_read_a_text_is_noticed() -> None:
    """The reader itself: a rule that finds nothing holds nothing."""
    ways = """
try:
    f()
except ServingRepoError as error:
    error.details.get("uncertain")
    if "timed out" in error.message: pass
    if str(error) == "gone": pass
    error.message.startswith("no connection")
    re.search("x", str(error))
    error.message = "another"
    error.args = ("another",)
    match error.message:
        case "gone": pass
"""
    assert len(read_by(ast.parse(ways))) == 8
    said = "raise Other(f'{error.message}; {error.code}', details={'a': rpc.details()})"
    assert read_by(ast.parse(said)) == []
