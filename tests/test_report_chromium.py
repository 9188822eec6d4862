"""The report in a real browser: charts come alive, nothing spills over, dark mode reaches into the charts.

A page with three frames is opened: the report at 400 px and at 1200 px, and at 400 px with its scripts
forbidden. Each frame posts what it measured of itself. Skipped where no Chromium is on the path.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.chart_style import PALETTE
from lab.report import write_report
from lab.store import Store
from tests.small_study import record_study

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")

FRAMES = {"narrow": 400, "wide": 1200, "still": 400}
CHARTS = 8
LIGHT, DARK = "preferredColorScheme=1", "preferredColorScheme=0"

PROBE = """
const box = (e) => e.getBoundingClientRect();
const shown = (e) => getComputedStyle(e).display !== "none" && box(e).width > 0 && box(e).height > 0;
const spills = [...document.querySelectorAll("body *")].filter((e) =>
  !e.closest(".scroll, pre, svg") && shown(e) && box(e).right > innerWidth + 1);
const charts = [...document.querySelectorAll("figure[data-chart]")];
const drawn = charts.map((f) => [...f.querySelectorAll("svg")].filter(shown));
const letters = [...document.querySelectorAll("figure svg text, svg.tree text")].filter(shown);
const scale = (e) => { const s = e.ownerSVGElement; return box(s).width / s.viewBox.baseVal.width; };
const label = drawn[0][0].querySelector(".role-axis-label text");
const point = drawn[0][0].querySelector(".mark-symbol.role-mark path");
const at = { bubbles: true, clientX: box(point).left + box(point).width / 2, clientY: box(point).top + 3 };
const move = (kind) => point.dispatchEvent(new PointerEvent(kind, at));
["pointerover", "pointermove", "mousemove"].forEach(move);
const tip = document.querySelector("#vg-tooltip-element.visible");
parent.postMessage({
  frame: NAME, width: innerWidth, scroll: document.documentElement.scrollWidth,
  spills: spills.map((e) => e.tagName + "." + e.className),
  live: charts.filter((f) => f.dataset.chart === "live").length, drawn: drawn.map((d) => d.length),
  smallest: Math.min(...letters.map((e) => parseFloat(getComputedStyle(e).fontSize) * scale(e))),
  page: getComputedStyle(document.body).backgroundColor, label: getComputedStyle(label).fill,
  copy: document.querySelectorAll("button").length, tip: tip ? tip.textContent : null,
}, "*");
"""
HOST = """<!doctype html><meta charset="utf-8"><body><script>
const found = {};
addEventListener("message", (e) => {
  found[e.data.frame] = e.data;
  document.title = Object.keys(found).length;
  document.querySelector("pre").textContent = JSON.stringify(found);
});
</script><pre></pre>%s</body>"""


def with_probe(page: str, name: str) -> str:
    """The page with a script at its end that measures it; for `still` no other script may run."""
    probe = PROBE.replace("NAME", json.dumps(name))
    if name == "still":
        page = page.replace("script-src 'unsafe-inline' 'unsafe-eval'", "script-src 'nonce-probe'")
    end = "</body></html>\n"
    assert page.endswith(end)
    script = f"<script nonce='probe'>setTimeout(() => {{{probe}}}, 1500)</script>"
    return page.removesuffix(end) + script + end


def look(directory: Path, scheme: str) -> dict[str, Any]:
    """What each frame says of itself, and the console's complaints under `console`."""
    assert CHROMIUM is not None
    options = [
        "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--dump-dom",
        "--enable-logging=stderr",
        "--virtual-time-budget=12000", "--window-size=1300,3000", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={directory / scheme}", f"--blink-settings={scheme}",
    ]  # fmt: skip
    done = subprocess.run(
        [CHROMIUM, *options, (directory / "host.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    [shown] = re.findall(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    found: dict[str, Any] = json.loads(html.unescape(shown) or "{}")
    assert found.keys() == FRAMES.keys(), done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return found | {"console": [line for line in console if "violates the following Content" not in line]}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pages")
    lab = Store(directory / "home")
    record_study(lab)
    page = write_report(lab, directory / "report.html").read_text(encoding="utf-8")
    for name in FRAMES:
        (directory / f"{name}.html").write_text(with_probe(page, name), encoding="utf-8")
    frames = "".join(
        f'<iframe src="{name}.html" style="width:{width}px;height:900px;border:0"></iframe>'
        for name, width in FRAMES.items()
    )
    (directory / "host.html").write_text(HOST % frames, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def light(pages: Path) -> dict[str, Any]:
    return look(pages, LIGHT)


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


@pytest.mark.parametrize("frame", FRAMES)
def test_nothing_spills_over_the_edge(light: dict[str, Any], frame: str) -> None:
    found = light[frame]
    assert found["width"] == FRAMES[frame]
    assert (found["scroll"], found["spills"]) == (FRAMES[frame], [])


@pytest.mark.parametrize("frame", FRAMES)
def test_every_chart_is_shown_once_with_letters_that_can_be_read(light: dict[str, Any], frame: str) -> None:
    found = light[frame]
    assert found["drawn"] == [1] * CHARTS
    assert found["live"] == (0 if frame == "still" else CHARTS)
    assert found["smallest"] >= 11


def test_charts_answer_the_pointer_and_queries_can_be_copied(light: dict[str, Any]) -> None:
    assert re.search(r"contrast.*effect, SD.*95\.\d+ %", light["wide"]["tip"])
    assert light["wide"]["copy"] > 10
    assert (light["still"]["tip"], light["still"]["copy"]) == (None, 0)


def test_the_browser_has_nothing_to_complain_about(light: dict[str, Any]) -> None:
    assert light["console"] == []


def test_dark_mode_reaches_into_live_and_still_charts(pages: Path, light: dict[str, Any]) -> None:
    dark = look(pages, DARK)
    for frame in FRAMES:
        assert (light[frame]["page"], light[frame]["label"]) == (rgb(PALETTE["paper"]), rgb(PALETTE["ink"]))
        assert (dark[frame]["page"], dark[frame]["label"]) == ("rgb(20, 24, 28)", "rgb(228, 231, 234)")
