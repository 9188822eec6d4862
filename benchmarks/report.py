"""The report against Altair's own saving of its charts: `python -m benchmarks.report`.

Ours is `write_report`: groups, queries, tables, and every chart as a still drawing and as data, in one page.
The peer reads the same rows by the same queries and saves each chart by `chart.save` as HTML with its scripts
inside, a page a chart, which is how one makes charts that open offline; a second peer saves SVG only.
Rows grow by the looks of a made-up study; its charts are those of the entropy study.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.table import promised, quick, runs
from lab.report import write_report
from lab.report_figures import FIGURES, WHOLE_STORE
from lab.report_group import ask, read_groups
from lab.store import Store
from tests.small_study import record_study


def saved(store: Store, folder: Path, kind: str) -> int:
    """The peer: every chart that has rows to a file of its own; how many."""
    count = 0
    for group in read_groups(store):
        for name, shown in {**FIGURES, **WHOLE_STORE}.items():
            frame = ask(store, shown.query, group.parameters).frame
            if not frame.is_empty():
                inline = {"inline": True} if kind == "html" else {}
                shown.draw(frame).save(str(folder / f"{group.name}-{name}.{kind}"), **inline)
                count += 1
    return count


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(place: Path, looks: Sequence[int]) -> None:
    """Print both ratios for a store of so many looks."""
    store = Store(place / "home")
    record_study(store, looks=looks)
    rows = sum(store.read(f"SELECT count(*) FROM {name}").item() for name in ("generation", "test"))
    write_report(store, place / "warm.html")  # both sides have loaded their libraries
    charts = saved(store, place, "svg")
    ours, html, svg = [], [], []
    for _ in range(runs(5, 2)):
        ours.append(timed(lambda: write_report(store, place / "report.html")))
        html.append(timed(lambda: saved(store, place, "html")))
        svg.append(timed(lambda: saved(store, place, "svg")))
    named = f"report of {rows:,} rows, {charts} charts, times as fast"
    whole, alone = ([b / a for a, b in zip(ours, one, strict=True)] for one in (html, svg))
    promised(named, "altair save, offline HTML a chart", whole, least=1.0)
    promised(named, "altair save, SVG alone", alone)


def main() -> None:
    """Print ratios for stores of growing size."""
    for looks in ((4, 8),) if quick() else ((4, 8), (4, 8, 16, 32)):
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), looks)


if __name__ == "__main__":
    main()
