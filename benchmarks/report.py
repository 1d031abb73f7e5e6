"""How large a report of 10,000 cases is, how long it takes to make, and to open in headless Chromium.

The targets are the issue's: it opens in less than 2 s, and has less than 5 MB. Open means loaded, drawn and with the
first rows of its table; the browser runs already, and each round opens the page anew.
"""

from __future__ import annotations

import random
import shutil
import time
from typing import TYPE_CHECKING

from benchmarks import timing
from servingrepo.reports.html import as_html
from servingrepo.reports.promotions import smoke_report
from servingrepo.repository.records import Proof
from servingrepo.smoke.report import SmokeReport, Verdict
from tests.browser.devtools import Browser, browser

if TYPE_CHECKING:
    from pathlib import Path

CASES = 10_000
SECONDS, MEGABYTES = 2.0, 5.0
TIME = "2026-11-30T10:00:00+00:00"


def main() -> None:
    options = timing.arguments(__doc__.partition("\n")[0], rounds=7)
    if shutil.which("chromium") is None:
        raise SystemExit("there is no chromium: tests/browser/prepare installs it")
    with timing.workplace(options.dir) as folder:
        made, data = [], b""
        for _ in range(3):
            start = time.perf_counter()
            data = as_html(smoke_report(proof(), subject="ranker@7", record=None, created=TIME))
            made.append(time.perf_counter() - start)
        page = folder / "report.html"
        page.write_bytes(data)
        with browser() as found:
            opened, searched = zip(
                *(open_and_search(found, page) for _ in range(options.rounds)), strict=True
            )
        measured = {
            "cases": CASES,
            "megabytes": len(data) / 1e6,
            "seconds_to_make": timing.middle(made),
            "seconds_to_open": timing.middle(opened),
            "seconds_to_search": timing.middle(searched),
        }
        targets = [
            timing.Target("seconds to open", timing.middle(opened), SECONDS),
            timing.Target("megabytes", len(data) / 1e6, MEGABYTES),
        ]
        timing.report("report", measured, targets, folder=folder)


def open_and_search(found: Browser, file: Path) -> tuple[float, float]:
    """Return the seconds until a page is open, and those until a search of all its rows has ended."""
    page = found.page()
    start = time.perf_counter()
    page.open(file)
    page.wait_until_drawn()
    if page.run("document.querySelector('#cases').tBodies[0].rows.length") != 100:
        raise SystemExit("the page has not the rows that it should have")
    opened = time.perf_counter() - start
    page.run("document.getElementById('search').focus()")
    start = time.perf_counter()
    page.write("#9999")
    if page.run("document.querySelector('#cases').tBodies[0].rows.length") != 1:
        raise SystemExit("the search has not found the case")
    return opened, time.perf_counter() - start


def proof() -> Proof:
    """Return the proof of many cases: each with a source of its own, one in a hundred failed with a long reason."""
    chance = random.Random(1)  # noqa: S311
    verdicts = tuple(
        Verdict(
            signature=f"signature_{number % 5}",
            api="Predict",
            outcome="failed" if number % 100 == 7 else "passed",
            reason=f"output scores: element {number} is {chance.random()}, expected {chance.random()}; "
            * 4
            if number % 100 == 7
            else "",
            source=f"case smoke/requests.jsonl#{number} (customer {chance.randrange(10**6)})",
            milliseconds=chance.lognormvariate(1.2, 0.4),
        )
        for number in range(CASES)
    )
    report = SmokeReport(
        model="ranker",
        version=7,
        endpoint="127.0.0.1:8500",
        signatures=tuple(f"signature_{number}" for number in range(5)),
        verdicts=verdicts,
    )
    return Proof(engine="docker", server="", time=TIME, staged=False, report=report)


if __name__ == "__main__":
    main()
