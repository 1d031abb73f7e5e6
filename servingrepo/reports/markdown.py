"""A report as Markdown for a merge request: short, and no text of others becomes markup, a link or a mention."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from servingrepo.reports.values import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servingrepo.reports.values import Report, Section, Table

__all__ = ["as_markdown"]

_MOST_ROWS = 50
_LONGEST = 500
_MOST_PROBLEMS = 50
_MARKUP = re.compile(r"[\\`*_\[\]<>#!|~&$^]")
_LINKED = re.compile(r"(?<=[@#!~%$&])(?=[\w\"])|(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)
"""Where a mention, a reference to an issue or a bare address would begin: behind its sign."""

_WORDS = {
    "passed": "passed",
    "failed": "**failed**",
    "inconclusive": "**inconclusive**",
    "not checked": "**not checked**",
    None: "report",
}


def as_markdown(report: Report) -> bytes:
    """Return a report as GitHub's and GitLab's Markdown. Long tables are cut, and say so."""
    return ("\n".join(_lines(plain(report))) + "\n").encode("utf-8")


def _lines(report: Report) -> Iterator[str]:
    yield f"## {_text(report.kind)}: {_text(report.subject)}"
    yield ""
    yield f"{_WORDS[report.outcome]}: {_text(report.verdict)}"
    yield ""
    if report.problems:
        yield from (f"- {_text(one)}" for one in report.problems[:_MOST_PROBLEMS])
        if len(report.problems) > _MOST_PROBLEMS:
            yield f"- and {len(report.problems) - _MOST_PROBLEMS} more"
        yield ""
    if report.hint:
        yield f"Next: {_text(report.hint)}"
        yield ""
    if report.facts:
        yield from _rows(("Fact", ""), report.facts)
        yield ""
    yield from _checks(report)
    for section in (*report.sections, *report.background):
        yield from _section(section)
    if report.log:
        yield "### Server log, last lines"
        yield ""
        # Indented by four blanks it is code, whatever fences stand in it.
        yield from (f"    {line}" for line in report.log)
        yield ""
    yield f"{_text(report.program)}, {_text(report.created)}"


def _checks(report: Report) -> Iterator[str]:
    """Yield all checks that did not pass, and how many did."""
    if not report.checks:
        return
    yield "### Checks"
    yield ""
    bad = [one for one in report.checks if one.outcome != "passed"]
    passed = len(report.checks) - len(bad)
    left = "".join(f"; {count} more {one}" for one, count in report.checks_left.items())
    yield f"{passed} of {len(report.checks)} passed{left}."
    yield ""
    if bad:
        rows = [
            (one.group, f"{one.name} {one.source}".rstrip(), one.outcome, one.reason) for one in bad
        ]
        yield from _rows(("Kind", "Check", "Outcome", "Why"), rows)
        yield ""


def _section(section: Section) -> Iterator[str]:
    yield f"### {_text(section.title)}"
    yield ""
    for remark in section.remarks:
        yield f"- {_text(remark)}"
    if section.remarks:
        yield ""
    if section.facts:
        yield from _rows(("Fact", ""), section.facts)
        yield ""
    for table in section.tables:
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield f"#### {_text(table.title)}"
        yield ""
    yield from _rows(table.heads, table.rows)
    yield ""
    if table.note:
        yield f"{_text(table.note)}"
        yield ""


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_text, heads))} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows[:_MOST_ROWS]:
        yield f"| {' | '.join(map(_text, row))} |"
    if len(rows) > _MOST_ROWS:
        more = f"and {len(rows) - _MOST_ROWS} more"
        yield f"| {' | '.join([more, *[''] * (len(heads) - 1)])} |"


def _text(text: str) -> str:
    """Return a text in which nothing is markup.

    Signs are written as character references, which Markdown takes for the signs themselves and never for markup.
    GitHub and GitLab look for mentions and addresses after that, in the finished text: a zero-width space behind the
    sign hides these from them.
    """
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    parts = _LINKED.split(shown.replace("\t", " "))
    return "&#8203;".join(_MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", one) for one in parts)
