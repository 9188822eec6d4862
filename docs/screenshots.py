"""Make the pictures of the README again: the report, and Prefect's pages while `ladder up` serves a home.

    python docs/screenshots.py var/report.html
    python docs/screenshots.py var/report.html --prefect http://127.0.0.1:4200

With Prefect's address, the last finished run of a study is shown, and its deployment. Wants Chromium.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.chromium import Page, browser  # noqa: E402

LIVE = "[...document.querySelectorAll('figure[data-chart]')].every((f) => f.dataset.chart === 'live')"
SETTLE_SECONDS = 10.0
"""For Prefect's pages, which go on drawing after they are loaded."""


def keep(page: Page, name: str) -> None:
    """Write what is seen."""
    target = HERE / f"{name}.png"
    target.write_bytes(page.picture())
    print(f"{target} {target.stat().st_size // 1000} kB")


def shoot_report(page: Page, address: str) -> None:
    """Top and figures in both colour schemes, and the top on a phone."""
    for name, width, dark in (("light", 1200, False), ("dark", 1200, True), ("phone", 400, False)):
        page.look(width=width, height=900, dark=dark)
        page.open(address, ready=LIVE)
        if dark:
            page.run("document.querySelector('section[id^=entropy-seeds] .path').scrollIntoView()")
        keep(page, f"report-{name}")


def shoot_prefect(page: Page, server: str) -> None:
    """The last finished run that belongs to a deployment, with its artifacts; then that deployment."""
    wanted = {
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, "deployment_id": {"is_null_": False}},
        "sort": "END_TIME_DESC",
        "limit": 1,
    }
    [run] = httpx.post(f"{server}/api/flow_runs/filter", json=wanted, timeout=60).raise_for_status().json()
    page.look(width=1200, height=900)
    page.open(f"{server}/runs/flow-run/{run['id']}")
    time.sleep(SETTLE_SECONDS)
    page.run(
        "[...document.querySelectorAll('a, button, li')].find((e) => e.innerText === 'Artifacts').click()"
    )
    time.sleep(SETTLE_SECONDS)
    keep(page, "prefect-run")
    page.open(f"{server}/deployments/deployment/{run['deployment_id']}")
    time.sleep(SETTLE_SECONDS)
    keep(page, "prefect-deployment")


def main() -> None:
    """Parse, then shoot."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("report", type=Path)
    asked.add_argument("--prefect", default="", help="address of a running server")
    found = asked.parse_args()
    with browser("--enable-unsafe-swiftshader") as page:  # Prefect draws its graph with WebGL
        shoot_report(page, found.report.absolute().as_uri())
        if found.prefect:
            shoot_prefect(page, found.prefect.rstrip("/"))


if __name__ == "__main__":
    main()
