"""Reports as pages: whole without a network, small, and hostile texts stay texts."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

import servingrepo
from servingrepo.errors import SmokeFailed
from servingrepo.reports.html import as_html
from servingrepo.reports.promotions import failure_report, smoke_report
from tests.reports import samples

VENDOR = Path(servingrepo.__file__).parent / "reports" / "vendor"
VENDORED = {
    # uplot 1.6.32 from the npm registry: docs/decisions.md says how to take a newer one.
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
VOID = {"meta", "link", "input", "img", "br", "hr"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the texts of some."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(data.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data

    @property
    def values(self) -> Any:
        """The page's JSON."""
        (place,) = [
            at
            for at, (_, attrs) in enumerate(one for one in self.elements if one[0] == "script")
            if attrs.get("id") == "data"
        ]
        return json.loads(self.texts["script"][place])


def shape(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    """Return elements and their attributes. A cell's class says only whether its text is short."""
    return [(tag, tuple(one for one in attrs if one != "class")) for tag, attrs in page.elements]


@pytest.mark.parametrize("kind", samples.KINDS)
def test_hostile_texts_change_no_element(kind: str) -> None:
    plain, hostile = (
        Page(as_html(samples.every_report(text)[kind])) for text in ("ok", samples.HOSTILE)
    )
    assert shape(plain) == shape(hostile)
    assert plain.open == hostile.open == []


@pytest.mark.parametrize("kind", samples.KINDS)
def test_policy_allows_the_page_s_own_scripts_only(kind: str) -> None:
    page = Page(as_html(samples.every_report(samples.HOSTILE)[kind]))
    scripts = [attrs for tag, attrs in page.elements if tag == "script"]
    policy = next(
        attrs["content"] or ""
        for tag, attrs in page.elements
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(one.split(" ", 1) for one in policy.split("; "))
    assert rules["default-src"] == "'none'"
    run = [
        text for text, one in zip(page.texts["script"], scripts, strict=True) if not one.get("type")
    ]
    assert rules["script-src"].split() == [hashed(text) for text in run]
    assert rules["style-src"] == hashed(page.texts["style"][0])


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.parametrize("kind", samples.KINDS)
def test_page_names_nothing_to_load(kind: str) -> None:
    page = Page(as_html(samples.every_report("ok")[kind]))
    for tag, attrs in page.elements:
        assert "src" not in attrs, tag
        assert attrs.get("href", "data:,") == "data:,", tag
        assert not any(name.startswith("on") or name == "style" for name in attrs), tag


def test_json_of_a_page_keeps_its_values() -> None:
    values = Page(as_html(samples.every_report(samples.HOSTILE)["promotion"])).values
    assert any("</script><script>" in one for one in values["checks"]["texts"])
    assert values["charts"][0]["series"][0]["values"] == [0.0123, 0.84, None]


def test_checks_that_need_a_reader_come_first() -> None:
    checks = Page(as_html(samples.every_report("ok")["promotion"])).values["checks"]
    outcomes = [checks["texts"][row[0]] for row in checks["rows"]]
    assert list(dict.fromkeys(outcomes)) == ["failed", "inconclusive", "not checked", "passed"]
    assert outcomes == sorted(
        outcomes, key=["failed", "inconclusive", "not checked", "passed"].index
    )


def test_lone_surrogates_and_controls_are_escaped() -> None:
    data = as_html(samples.every_report(samples.HOSTILE)["life"]).decode()
    assert not any(sign in data for sign in "\0\x1b\u202e\u2028\u2029")
    assert "\\ud800" in data


def test_ten_thousand_cases_stay_below_five_megabytes() -> None:
    verdicts = tuple(
        msgspec.structs.replace(one, reason=f"{number}: {'x' * 600}")
        for number, one in enumerate(samples.verdicts(10_000))
    )
    report = smoke_report(
        samples.proof(verdicts), subject="ranker@7", record=None, created=samples.TIME
    )
    data = as_html(report)
    assert len(data) < 5_000_000
    assert len(Page(data).values["checks"]["rows"]) > 10_000


def test_the_page_says_what_was_not_read() -> None:
    proof = samples.proof(samples.verdicts(4), left_out={"passed": 8000})
    report = smoke_report(proof, subject="ranker@7", record=None, created=samples.TIME)
    assert b"8000 more passed: the report has the first of them only." in as_html(report)


def test_the_secret_of_a_message_is_masked() -> None:
    error = SmokeFailed("it failed", log="password=hunter2secret")
    report = failure_report(
        error, kind="Promotion", subject="ranker", proof=None, created=samples.TIME
    )
    assert b"hunter2secret" not in as_html(report)


def test_endless_numbers_are_named_and_not_drawn() -> None:
    report = samples.every_report("ok")["diff"]
    (drift,) = [one for one in report.sections if one.title.startswith("Drift")]
    assert drift.charts[0].note == "1 infinite differences are not drawn"
    assert math.isinf(samples.drift().outputs[2].largest)
    assert "inf" in drift.tables[0].rows[2]


@pytest.mark.parametrize("name", VENDORED)
def test_the_library_of_charts_is_as_published(name: str) -> None:
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == VENDORED[name]
    assert {one.name for one in VENDOR.iterdir()} == set(VENDORED)


def test_a_page_has_the_licence_of_its_library() -> None:
    licence = (VENDOR / "uPlot.LICENSE").read_text().splitlines()
    data = as_html(samples.every_report("ok")["life"]).decode()
    assert licence[2] in data
    assert licence[0] in data
