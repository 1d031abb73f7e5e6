"""docs/doctor.md has the rules of doctor, and each of them is provoked by a test."""

from __future__ import annotations

from pathlib import Path

from servingrepo.verbs.doctor_rules import RULES
from tools.doctor_rules import DOCUMENT, described

TESTS = Path(__file__).resolve().parents[1]


def test_the_document_has_the_rules_as_they_are() -> None:
    text = DOCUMENT.read_text()
    assert described(text) == text, "make house"
    assert text.count("\n| `") == len(RULES)


def test_every_rule_is_provoked_by_a_test() -> None:
    texts = "".join(path.read_text() for path in TESTS.glob("verbs/test_doctor_*.py"))
    slugs = [one.slug for one in RULES]
    assert len(set(slugs)) == len(slugs) > 50
    assert [one for one in slugs if f'"{one}"' not in texts] == []
