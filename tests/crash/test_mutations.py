"""The list of fsyncs, locks and flags is whole, and each can be taken out; `make reliability` takes each out."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.crash.mutations import MUTATIONS, PROJECT, mutation_of
from tests.crash.sites import PACKAGE, Site, mutated, sites

if TYPE_CHECKING:
    from pathlib import Path


FOUND = sites()


def test_every_fsync_lock_and_flag_in_the_code_has_a_test_that_must_notice_its_removal() -> None:
    assert [str(site) for site in FOUND if mutation_of(site) is None] == []


def test_every_mutation_on_the_list_is_of_something_in_the_code() -> None:
    assert [str(site) for site in MUTATIONS if site not in FOUND] == []


@pytest.mark.parametrize("site", FOUND, ids=str)
def test_a_mutation_changes_its_place_and_nothing_else(site: Site) -> None:
    mutation = mutation_of(site)
    assert mutation is not None
    source = (PACKAGE / site.file).read_text()
    node = FOUND[site]
    changed = mutated(source, node, mutation.replacement)
    ast.parse(changed)
    assert changed != source
    assert mutated(changed, _again(changed, node, mutation.replacement), _text(source, node)) == (
        source
    )
    file = mutation.tests[0].split("::", maxsplit=1)[0]
    assert (PROJECT / file).is_file()


def _text(source: str, node: ast.expr) -> str:
    text = ast.get_source_segment(source, node)
    assert text is not None
    return text


def _again(changed: str, node: ast.expr, replacement: str) -> ast.expr:
    """Return the replacement where it stands in the changed source."""
    spot = ast.parse(replacement, mode="eval").body
    spot.lineno = spot.end_lineno = node.lineno
    spot.col_offset = node.col_offset
    spot.end_col_offset = node.col_offset + len(replacement)
    return spot


def test_the_sites_of_a_file_are_found_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "A = os.O_EXCL\ndef f(a):\n    os.fsync(a)\n    with locked(a), locked(a):\n        open(a, os.O_EXCL)\n"
    )
    found = [(one.function, one.what, one.nth) for one in sites(tmp_path)]
    assert found == [
        ("the module", "O_EXCL", 1),
        ("f", "fsync", 1),
        ("f", "locked", 1),
        ("f", "locked", 2),
        ("f", "O_EXCL", 1),
    ]
