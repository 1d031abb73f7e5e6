"""Reports in a real browser: quiet, alone, reachable by keyboard, narrow and wide, light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from servingrepo.reports.html import as_html
from servingrepo.reports.promotions import smoke_report
from tests.browser.conftest import written
from tests.reports import samples

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.devtools import Browser, Page

pytestmark = pytest.mark.browser

TAB, ENTER = ("Tab", 9, ""), ("Enter", 13, "\r")
FOCUSED = "document.activeElement.id || document.activeElement.tagName + ':' + document.activeElement.textContent"


@pytest.mark.parametrize("kind", samples.KINDS)
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (360, False)])
def test_a_page_is_quiet_and_asks_for_nothing(
    kind: str, width: int, dark: bool, chromium: Browser, pages: dict[str, Path]
) -> None:
    page = chromium.page(width=width, dark=dark).open(pages[kind])
    assert page.complaints == []
    assert page.requests == [pages[kind].as_uri()]
    figures = page.run("document.querySelectorAll('figure').length")
    assert page.run("document.querySelectorAll('figure .uplot canvas').length") == figures > 0


@pytest.mark.parametrize("kind", samples.KINDS)
def test_a_narrow_screen_scrolls_no_page(
    kind: str, chromium: Browser, tmp_path: Path, pages: dict[str, Path]
) -> None:
    for file in (pages[kind], written(tmp_path, samples.HOSTILE + "x" * 300)[kind]):
        page = chromium.page(width=360).open(file)
        assert page.run("document.documentElement.scrollWidth") == 360, file
        wide = """[...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll, pre, .plot')
            && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 99))"""
        assert page.run(wide) == []


@pytest.mark.parametrize("kind", samples.KINDS)
def test_hostile_texts_stay_texts(kind: str, chromium: Browser, tmp_path: Path) -> None:
    page = chromium.page().open(written(tmp_path, samples.HOSTILE)[kind])
    assert page.complaints == []
    assert len(page.requests) == 1
    assert page.run("document.title") != "owned"
    assert page.run("document.querySelectorAll('img, iframe, object, a').length") == 0
    assert page.run("document.scripts.length") == 3


def test_the_policy_stops_what_was_not_there(chromium: Browser, pages: dict[str, Path]) -> None:
    page = chromium.page().open(pages["promotion"])
    page.run("""{
        const script = document.createElement('script');
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        const image = document.createElement('img');
        image.src = 'http://127.0.0.1:1/x.png';
        document.body.append(image);
    }""")
    assert page.run("document.title") == "Promotion: ranker@7"
    assert len([one for one in page.complaints if "Content Security Policy" in one]) == 2
    failed = page.events("Network.loadingFailed")
    assert [one.get("blockedReason") for one in failed] == ["csp"]


def focused_by_tab(page: Page, *, most: int = 200) -> list[str]:
    """Return what the Tab key reaches, in order."""
    reached: list[str] = []
    for _ in range(most):
        page.press(*TAB)
        one = page.run(FOCUSED)
        if one.startswith("BODY") or (reached and one == reached[0] and len(reached) > 3):
            return reached
        reached.append(one)
    return reached


def test_everything_is_reached_by_keyboard(chromium: Browser, tmp_path: Path) -> None:
    page = chromium.page().open(large(tmp_path, 250))
    reached = focused_by_tab(page)
    assert {"search", "outcome", "more"} <= set(reached)
    assert [one for one in reached if one.startswith("BUTTON:")] == [
        f"BUTTON:{head}" for head in ("Outcome", "Check", "Data", "Call", "ms", "Why")
    ]
    assert sum(one.startswith("SUMMARY") for one in reached) == 1
    scrolled = page.run(
        "[...document.querySelectorAll('.scroll, pre')].every((one) => one.tabIndex === 0)"
    )
    assert scrolled


def test_more_rows_come_by_the_enter_key(chromium: Browser, tmp_path: Path) -> None:
    page = chromium.page().open(large(tmp_path, 250))
    assert rows(page) == 100
    page.run("document.getElementById('more').focus()")
    page.press(*ENTER)
    assert rows(page) == 200
    assert page.run("document.activeElement.rowIndex") == 101
    page.run("document.getElementById('more').focus()")
    page.press(*ENTER)
    assert rows(page) == 250
    assert page.run("document.getElementById('more').hidden") is True


def test_search_finds_words_in_all_rows(chromium: Browser, tmp_path: Path) -> None:
    page = chromium.page().open(large(tmp_path, 3000))
    page.run("document.getElementById('search').focus()")
    page.write("classify #2997")
    assert rows(page) == 1
    assert "case requests.json#2997" in page.run(
        "document.querySelector('#cases tbody').textContent"
    )
    assert page.run("document.getElementById('shown').textContent") == "1 of 1 found"
    page.run("document.getElementById('search').value = ''")
    page.run("""{
        const outcome = document.getElementById('outcome');
        outcome.value = 'failed';
        outcome.dispatchEvent(new Event('change'));
    }""")
    failed = sum(one.outcome == "failed" for one in samples.verdicts(3000))
    assert rows(page) == failed


def test_a_column_is_sorted_up_and_down(chromium: Browser, tmp_path: Path) -> None:
    page = chromium.page().open(large(tmp_path, 300))
    times = sorted(one.milliseconds for one in samples.verdicts(300))
    page.run(
        "[...document.querySelectorAll('th button')].find((one) => one.textContent === 'ms').focus()"
    )
    for wanted, first in (("ascending", times[0]), ("descending", times[-1])):
        page.press(*ENTER)
        assert page.run("document.activeElement.parentNode.ariaSort") == wanted
        cell = "document.querySelector('#cases').rows[1].cells[document.activeElement.parentNode.cellIndex]"
        assert float(page.run(f"{cell}.textContent")) == pytest.approx(first)


def test_colours_follow_what_the_user_prefers(chromium: Browser, pages: dict[str, Path]) -> None:
    page = chromium.page().open(pages["promotion"])
    light = colours(page)
    page.colours(dark=True)
    page.wait_until_drawn()
    dark = colours(page)
    for one in (light, dark):
        assert contrast(one["front"], one["back"]) > 7
        assert contrast(one["soft"], one["back"]) > 4.5
        assert contrast(one["back"], one["badge"]) > 4.5
    assert sum(light["back"]) > 700
    assert sum(dark["back"]) < 120
    assert light["plot"] != dark["plot"]
    assert page.complaints == []


def test_charts_follow_the_window_s_width(chromium: Browser, pages: dict[str, Path]) -> None:
    page = chromium.page(width=1200).open(pages["life"])
    width = "document.querySelector('.uplot').getBoundingClientRect().width"
    wide = page.run(width)
    page.resize(360)
    page.wait_until_drawn()
    assert page.run(width) < 340 < wide


def large(folder: Path, count: int) -> Path:
    """Write a page with many checks."""
    file = folder / "large.html"
    proof = msgspec.structs.replace(samples.proof(samples.verdicts(count)), drift=None)
    report = smoke_report(proof, subject="ranker@7", record=None, created=samples.TIME)
    file.write_bytes(as_html(report))
    return file


def rows(page: Page) -> int:
    return int(page.run("document.querySelector('#cases').tBodies[0].rows.length"))


def colours(page: Page) -> dict[str, Any]:
    """Return the colours of a page, as red, green and blue, and how often each colour is in a chart."""
    found: dict[str, Any] = page.run("""(() => {
        const rgb = (text) => text.match(/\\d+/g).slice(0, 3).map(Number);
        const style = (one) => getComputedStyle(one);
        const canvas = document.querySelector('.uplot canvas');
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const counts = {};
        for (let at = 0; at < pixels.length; at += 4) {
            if (pixels[at + 3] === 255) {
                const key = pixels[at] + ',' + pixels[at + 1] + ',' + pixels[at + 2];
                counts[key] = (counts[key] || 0) + 1;
            }
        }
        return {
            front: rgb(style(document.body).color), back: rgb(style(document.body).backgroundColor),
            soft: rgb(style(document.querySelector('dt')).color),
            badge: rgb(style(document.querySelector('.badge')).backgroundColor),
            plot: Object.entries(counts).sort((one, other) => other[1] - one[1])[0][0],
        };
    })()""")
    return found


def contrast(one: list[int], other: list[int]) -> float:
    """Return the contrast of two colours (WCAG 2.2)."""

    def light(colour: list[int]) -> float:
        parts = [part / 255 for part in colour]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dim, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dim + 0.05)
