"""One word has one meaning: the words in bold of docs/glossary.md occur in no message, comment or document."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
GLOSSARY = PROJECT / "docs" / "glossary.md"
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in GLOSSARY.read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| word |", "| --- |"))
]
WORDS = sorted({word for row in ROWS for word in re.findall(r"\*\*(.+?)\*\*", row[2])})

NO_PROSE = {"foreign": ("textproto",)}
"""Rooms in which a word is a name in a text that is code: a regular expression has a group of that name."""


def prose_of_document(text: str) -> str:
    """Return what people read: neither commands, nor names in backticks, nor where links lead."""
    return re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)


def prose_of_module(text: str) -> Iterator[str]:
    """Yield comments, docstrings and texts; a text without a space is a key or a name."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield prose_of_document(token.string)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield prose_of_document(node.value)


def found_in(path: Path) -> set[str]:
    text = path.read_text()
    prose = "\n".join(prose_of_module(text)) if path.suffix == ".py" else prose_of_document(text)
    return {word for word in WORDS if re.search(rf"\b{word}s?\b", prose, re.IGNORECASE)}


def room_of(path: Path) -> str:
    return path.relative_to(PROJECT).parts[1] if path.suffix == ".py" else ""


def test_words_with_another_name_are_not_used() -> None:
    documents = {PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("docs/**/*.md")}
    wrong = [
        f"{path.relative_to(PROJECT)}: {word}"
        for path in sorted({*documents, *PROJECT.glob("servingrepo/**/*.py")} - {GLOSSARY})
        for word in sorted(found_in(path))
        if room_of(path) not in NO_PROSE.get(word, ())
    ]
    assert wrong == [], "docs/glossary.md has the word for it"


def test_glossary_has_each_word_once_and_in_order() -> None:
    words = [row[0] for row in ROWS]
    assert len(words) > 30
    assert words == sorted(set(words), key=str.lower)


def test_glossary_forbids_no_word_of_its_own() -> None:
    assert {row[0] for row in ROWS} & set(WORDS) == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"""Bring a straggler home."""', {"straggler"}),
        ("x = 1  # all Stragglers", {"straggler"}),
        ('raise E(f"{a} is a straggler")', {"straggler"}),
        ('KEY = "straggler"\nstraggler = 1', set()),
        ('"""See `stragglers.json`."""', set()),
    ],
)
def test_only_prose_counts(tmp_path: Path, text: str, found: set[str]) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)
    assert found_in(path) == found
