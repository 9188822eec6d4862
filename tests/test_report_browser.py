"""The report under a person's hands: the keyboard, a phone with everything unfolded, paper, no network.

`test_report_chromium.py` looks at charts; here the page is used. Skipped where there is no Chromium. The
rules of axe-core run too where its script is found: `npm install axe-core`, then
`AXE=node_modules/axe-core/axe.min.js python -m pytest tests/test_report_browser.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.report import write_report
from lab.store import Store
from tests.chromium import CHROMIUM, Page, browser
from tests.small_mechanism import record_mechanism

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")
AXE = os.environ.get("AXE", "")
LIVE = "[...document.querySelectorAll('figure[data-chart]')].every((f) => f.dataset.chart === 'live')"
UNFOLD = "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
STOPS = "a[href], summary, button, [tabindex='0']"
"""What the keyboard must stop at."""
SEEN = "((e) => e.checkVisibility({ contentVisibilityAuto: true }) && e.getBoundingClientRect().width > 0)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a report."""
    lab = Store(tmp_path_factory.mktemp("lab"))
    record_mechanism(lab)
    return write_report(lab, lab.home / "report.html").as_uri()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as page:
        yield page


def shown(page: Page, report: str, **look: Any) -> Page:
    page.look(**{"width": 1200, **look})
    page.open(report, ready=LIVE)
    return page


@pytest.mark.parametrize("dark", [False, True])
def test_opening_it_asks_for_nothing_but_the_file_itself(page: Page, report: str, dark: bool) -> None:
    page.requests.clear()
    page.complaints.clear()
    shown(page, report, dark=dark).run(UNFOLD)
    assert (page.requests, page.complaints) == ([report], [])


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(page: Page, report: str) -> None:
    shown(page, report)
    page.run(f'window.stops = [...document.querySelectorAll("{STOPS}")].filter({SEEN}); window.met = []')
    stops = page.run("stops.length")
    assert stops > 30
    for _ in range(stops):
        page.press("Tab")
        page.run(
            "met.push([stops.indexOf(document.activeElement),"
            " getComputedStyle(document.activeElement).outlineStyle])"
        )
    assert page.run("met") == [[place, "solid"] for place in range(stops)]


def test_the_first_stop_leads_past_the_list_of_sections(page: Page, report: str) -> None:
    shown(page, report).press("Tab")
    assert page.run("document.activeElement.textContent") == "To the answers"
    assert page.run("document.activeElement.getBoundingClientRect().left") >= 0
    page.press("Enter")
    page.press("Tab")
    assert page.run("location.hash") == "#glance"
    assert page.run("document.querySelector('#glance').contains(document.activeElement)")


def test_enter_unfolds_the_sql_beside_a_sentence(page: Page, report: str) -> None:
    shown(page, report).run("document.querySelector('.answers summary').focus()")
    page.press("Enter")
    assert page.run("document.activeElement.parentElement.open")
    page.press("Tab")
    assert page.run("document.activeElement.textContent") == "Copy"


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_scrolls_tables_and_never_the_page(page: Page, report: str, dark: bool) -> None:
    shown(page, report, width=400, dark=dark).run(UNFOLD)
    page.run("scrollTo(500, 0)")
    assert page.run("[document.documentElement.scrollWidth, scrollX]") == [400, 0]
    wide = page.run("[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > 401).length")
    assert wide > 0


@pytest.mark.parametrize("dark", [False, True])
def test_paper_has_stills_everything_unfolded_and_no_dark_background(
    page: Page, report: str, dark: bool
) -> None:
    shown(page, report, width=794, dark=dark)
    page.look(width=794, dark=dark, media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 252)"
    drawn = page.run(
        "[...document.querySelectorAll('figure')].map((f) =>"
        f" [...f.querySelectorAll('.still > svg, .live svg')].filter({SEEN})"
        ".map((e) => e.parentElement.className))"
    )
    assert drawn == [["still"]] * len(drawn)
    assert drawn
    every = "[...document.querySelectorAll('details:not(.query)')]"
    folded = f"{every}.filter((d) => !d.parentElement.closest('details'))"
    assert page.run(f"{folded}.length") > 3
    assert page.run(f"{folded}.every((d) => d.children[1].getBoundingClientRect().height > 0)")
    assert page.run(f"[...document.querySelectorAll('button, nav, .skip')].filter({SEEN}).length") == 0
    assert page.paper().startswith(b"%PDF-")


@pytest.mark.skipif(not AXE, reason="set AXE to axe-core's axe.min.js")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_violation(page: Page, report: str, dark: bool) -> None:
    shown(page, report, width=400 if dark else 1200, dark=dark).run(UNFOLD)
    page.run(Path(AXE).read_text(encoding="utf-8") + "; 0")
    found = "r.violations.map((v) => [v.impact, v.id, v.nodes[0].html.slice(0, 200)])"
    # thousands of drawn marks take minutes, and each drawing has a title
    assert page.run(f"axe.run({{exclude: [['figure svg']]}}).then((r) => {found})") == []
