"""Reports as Markdown: tables stay tables, and no text of others becomes markup, a link or a mention."""

from __future__ import annotations

import re

import pytest

from servingrepo.errors import SmokeFailed
from servingrepo.reports.differences import diff_report
from servingrepo.reports.markdown import as_markdown
from servingrepo.reports.promotions import failure_report, promotion_report, smoke_report
from tests.reports import samples


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def promoted(text: str = "new features") -> str:
    done = samples.promotion(
        samples.proof(samples.verdicts(12)),
        run=text,
        gates=samples.gates(text),
        guard=samples.guard(text),
    )
    report = promotion_report(
        done,
        record=samples.record(text=text),
        created=samples.TIME,
    )
    return as_markdown(report).decode()


def test_the_verdict_comes_first() -> None:
    lines = promoted().splitlines()
    assert lines[0] == "## Promotion: ranker@&#8203;7"
    assert lines[2].startswith("**inconclusive**: ranker@&#8203;7 is published and served.")


@pytest.mark.parametrize("text", ["new features", samples.HOSTILE], ids=["plain", "hostile"])
def test_every_row_has_its_table_s_columns(text: str) -> None:
    columns = 0
    for line in promoted(text).splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        columns = columns or line.count("|")
        assert line.count("|") == columns, line


def test_no_hostile_text_is_markup_link_or_mention() -> None:
    text = promoted(samples.HOSTILE)
    for sign in ("<script", "<img", "](", "@everyone", "#1 ", "https://", "`"):
        assert sign not in text, sign
    assert "&#60;script&#62;" in text
    assert text.isprintable() or all(one.isprintable() or one in "\n\u200b" for one in text)


def test_a_path_can_be_copied_from_markdown() -> None:
    assert "| Run | /data/runs/2026&#95;11&#95;7 |" in promoted()


def test_a_budget_without_decision_is_listed() -> None:
    text = promoted()
    assert re.search(r"\| drift \| .*max-churn \| inconclusive \|", text)
    assert "not checked" in text


def test_a_failure_lists_problems_hint_and_log() -> None:
    error = SmokeFailed(
        "it failed",
        hint="repair it",
        problems=[f"case {number}" for number in range(80)],
        log="one | line\n```\nanother",
    )
    report = failure_report(
        error, kind="Promotion", subject="ranker", proof=None, created=samples.TIME
    )
    text = as_markdown(report).decode()
    assert "**failed**: it failed" in text
    assert "- case 49\n- and 30 more\n" in text
    assert "Next: repair it" in text
    assert "    one | line\n    ```\n    another" in text


def test_long_tables_and_texts_are_cut() -> None:
    proof = samples.proof(samples.verdicts(9000))
    report = smoke_report(proof, subject="ranker@7", record=None, created=samples.TIME)
    text = as_markdown(report).decode()
    assert "**failed**: 93 checks failed." in text
    assert len(text) < 30_000
    assert "| and 44 more |  |  |  |" in text


def test_a_comparison_says_what_breaks_clients() -> None:
    report = diff_report(samples.difference(samples.HOSTILE), created=samples.TIME)
    text = as_markdown(report).decode()
    assert "**failed**: Clients of ranker@&#8203;6 break. 2 changes of signatures." in text
    assert "<script" not in text
