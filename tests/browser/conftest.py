"""A browser, and pages of every kind of report."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from servingrepo.reports.html import as_html
from tests.browser.devtools import browser
from tests.reports.samples import every_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.browser.devtools import Browser


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Headless Chromium."""
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium: tests/browser/prepare installs it")
    with browser() as found:
        yield found


def written(folder: Path, text: str) -> dict[str, Path]:
    """Write a page of each kind, in which all texts of others are one text."""
    pages = {}
    for kind, report in every_report(text).items():
        pages[kind] = folder / f"{kind}.html"
        pages[kind].write_bytes(as_html(report))
    return pages


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind."""
    return written(tmp_path_factory.mktemp("pages"), "new features")
