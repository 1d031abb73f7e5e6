"""A report as one page of HTML that needs nothing else: no file, no font, no network.

Its Content-Security-Policy (W3C, CSP level 3) lets the browser run the two scripts and the style that this file put
there, by their hashes, and load nothing. Values stand in escaped text, or as JSON in a block that is no script.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from servingrepo.reports.templates import fill
from servingrepo.reports.values import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servingrepo.reports.values import Check, Outcome, Report

__all__ = ["as_html"]

_ROOM = Path(__file__).parent
_TEXT_OF_CHECKS = 2_500_000
"""Characters that the reasons of all checks may have together: a page must stay below 5 MB."""
_SHORTEST, _LONGEST = 120, 4000
_ORDER: tuple[Outcome, ...] = ("failed", "inconclusive", "not checked", "passed")
"""Checks that need a reader come first."""
_AS_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""What could end the block of JSON or begin markup. `json.dumps` escapes all that is not ASCII, U+2028 too."""


def as_html(report: Report) -> bytes:
    """Return a report as a page of HTML."""
    from markupsafe import Markup  # it comes with jinja2

    report = plain(report)
    style = _read("vendor/uPlot.min.css") + _read("forms/page.css")
    scripts = [_read("vendor/uPlot.iife.min.js"), _read("forms/page.js")]
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(map(_hash, scripts)),
        "style-src": _hash(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    data = {
        "checks": _checks(report.checks),
        "charts": [
            msgspec.to_builtins(chart)
            for section in (*report.sections, *report.background)
            for chart in section.charts
        ],
    }
    text = fill(
        "page.html.jinja",
        report=report,
        policy="; ".join(f"{name} {value}" for name, value in policy.items()),
        # Files of this package, and JSON that has no sign of markup: not to be escaped.
        style=Markup(style),  # nosec B704 # noqa: S704
        scripts=[Markup(one) for one in scripts],  # nosec B704 # noqa: S704
        data=Markup(_json(data)),  # nosec B704 # noqa: S704
        licence=_read("vendor/uPlot.LICENSE"),
        counts=_counts(report),
    )
    return text.encode("utf-8")


def _read(name: str) -> str:
    return (_ROOM / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(value: Any) -> str:
    """Return JSON that may stand in any element of HTML."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.translate(_AS_ESCAPES)


def _checks(checks: Sequence[Check]) -> dict[str, Any]:
    """Return checks as rows that name their texts by number: of many checks most texts are alike."""
    longest = max(_SHORTEST, min(_LONGEST, _TEXT_OF_CHECKS // max(1, len(checks))))
    texts: dict[str, int] = {}

    def number(text: str) -> int:
        cut = text if len(text) <= longest else f"{text[:longest]}…"
        return texts.setdefault(cut, len(texts))

    rows = [
        [
            number(one.outcome),
            number(one.group),
            number(one.name),
            number(one.source),
            number(one.call),
            one.requests,
            round(one.milliseconds, 3),
            number(one.reason),
        ]
        for one in sorted(checks, key=lambda one: _ORDER.index(one.outcome))
    ]
    return {"texts": list(texts), "rows": rows}


def _counts(report: Report) -> dict[str, int]:
    counts: dict[str, int] = dict.fromkeys(_ORDER, 0)
    for one in report.checks:
        counts[one.outcome] += 1
    return counts
